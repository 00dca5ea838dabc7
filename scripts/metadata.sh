#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# kernel.sh calls this, in the build root.
#
# metadata.sh SOURCE HEADERS BUILD: make BUILD, a tree that Rust modules can be built against.
#
# Debian's headers lack the Rust metadata (rust/*.rmeta, rust/*.so).  They are made again here, from the same
# version's source, unpacked in SOURCE, the configuration in HEADERS, the tree of the headers package, and the
# compilers that the kernel was built with.

set -euo pipefail

source=$(realpath "$1") headers=$(realpath "$2")
mkdir "$3"
cd "$3"

release=$(<"$headers/include/config/kernel.release")
upstream=$(make -s -C "$source" kernelversion)
cp "$headers"/{.config,.kernelvariables,vmlinux} .
# Of the tools the headers have the programs.  To build them takes the headers of libelf, which cannot be had of
# the version that a kernel from the backports brings along.
cp -rL "$headers/tools" .
# To optimize the crates that the macros are made of, which only the compiler runs, takes longer than it saves.
sed -i 's/ --crate-type rlib -O / --crate-type rlib /' "$source/rust/Makefile"
make=(make -s --no-print-directory -f "$source/Makefile" -o tools/objtool -o tools/bpf/resolve_btfids
	"LOCALVERSION=${release#"$upstream"}" "-j$(nproc)")
"${make[@]}" olddefconfig
"${make[@]}" prepare modules_prepare
if [ ! -e rust/libkernel.rmeta ]; then
	printf 'dm-switch: the build of %s has no Rust any more:\n' "$release" >&2
	"${make[@]}" rustavailable
	exit 1
fi
cp "$headers/Module.symvers" .
