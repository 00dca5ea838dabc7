#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make module; guest.sh calls it, too.
#
# module.sh [COPY]: build dm-switch.ko at the top of the checkout, and copy it to COPY.
#
# KDIR in the environment names a kernel tree to build against, with the host's own compilers;
# without it, it is the tree of kernel.sh, in the root with that one's compilers.  CRATE there says which crate
# "kernel" to take (see kernel.sh); with KDIR and without CRATE, Kbuild takes the one that the tree has, if it can.

. "$(dirname "$0")/lib.sh"
cd "$top"

if [ -n "${KDIR:-}" ]; then
	builder=()
	tree=$KDIR
else
	need_kernel
	builder=(in_builder)
	tree=$KDIR
fi
arguments=()
if [ -n "${CRATE:-}" ]; then
	arguments+=("CRATE=$CRATE")
fi
if [ -n "${COVERAGE:-}" ]; then
	arguments+=(COVERAGE=1 "LDFLAGS_MODULE=-T $top/tests/coverage/counters.lds")
fi
[ -e "$tree/include/config/kernel.release" ] ||
	die "KDIR: $tree is not a prepared kernel tree: it has no include/config/kernel.release.
Install the headers of the kernel (for the one that runs Debian's package linux-headers-$(uname -r)); in a tree of your
own, make modules_prepare"
# Not what kernel.release has: in Debian 12's headers that is the version (6.1.192), not the release (6.1.0-56-amd64).
release=$(sed -n 's/^#define UTS_RELEASE "\(.*\)"/\1/p' "$tree/include/generated/utsrelease.h")
if [ "${CRATE:-}" = kernel ] && [ ! -e "$tree/rust/libkernel.rmeta" ]; then
	die "KDIR: $tree has no Rust metadata (rust/libkernel.rmeta), as headers packages come:
no module can be built against it with the kernel's own crate.  CRATE=compat takes the stand-in; for a kernel of
Debian's,
  make module CRATE=kernel KVER=$release
makes the metadata again; for another, give the tree that the kernel was built in."
fi

# Runs at the same time build one after the other.
exec 9<Kbuild
flock 9
usual=''
[ -e dm-switch.ko ] || usual=45
log=$(mktemp)
usually=$usual timed "$log" "building dm-switch.ko for $release" \
	"${builder[@]}" make -s -C "$tree" "M=$top" "${arguments[@]}" "-j$(nproc)" modules
# All of it: compilers warn, too.
cat "$log" >&2
rm "$log"
[ "$status" -eq 0 ] || exit "$status"
if [ $# -gt 0 ]; then
	cp dm-switch.ko "$1"
fi
