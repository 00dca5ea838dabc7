#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# module.sh [COPY]: build dm-switch.ko at the top of the checkout, and copy it to COPY.
#
# KDIR in the environment names a kernel tree to build against, with the host's own compilers;
# without it, it is the tree of kernel.sh, in the build root.

. "$(dirname "$0")/lib.sh"
cd "$top"

if [ -n "${KDIR:-}" ]; then
	builder=()
	tree=$KDIR
else
	need_kernel
	builder=(in_root)
	tree=$KDIR
fi
[ -e "$tree/include/config/kernel.release" ] ||
	die "KDIR: $tree is not a prepared kernel tree: it has no include/config/kernel.release"
release=$(<"$tree/include/config/kernel.release")
[ -e "$tree/rust/libkernel.rmeta" ] ||
	die "KDIR: $tree has no Rust metadata (rust/libkernel.rmeta), as headers packages come:
no Rust module can be built against it.  For a kernel of Debian's,
  make module KVER=$release
makes the metadata again; for another, give the tree that the kernel was built in."

# Runs at the same time build one after the other.
exec 9<Kbuild
flock 9
start=$SECONDS
"${builder[@]}" make -s -C "$tree" "M=$top" "-j$(nproc)" modules >&2
printf 'dm-switch: built dm-switch.ko for %s in %d s\n' "$release" $((SECONDS - start)) >&2
if [ $# -gt 0 ]; then
	cp dm-switch.ko "$1"
fi
