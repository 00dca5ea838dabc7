#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# core.sh LIBRARY DIR: copy to DIR what core is compiled of, from LIBRARY, the source of the compiler's library.
#
# Thousands of functions for vector instructions, which no code for the kernel may use, are left out.  To compile
# those takes 300 MB of memory, and a quarter of the time.

set -eu

library=$1 dir=$2
simd=portable-simd/crates/core_simd arch=stdarch/crates/core_arch

rm -rf "$dir"
mkdir -p "$dir/core" "$dir/$simd" "$dir/$arch/src"
cp -r "$library/core/." "$dir/core"
cp -r "$library/$simd/." "$dir/$simd"
# What converts to the machines' own vectors, and shuffles by their instructions.
: >"$dir/$simd/src/vendor.rs"
: >"$dir/$simd/src/swizzle_dyn.rs"
cp "$(dirname "$0")/core_arch.rs" "$dir/$arch/src/mod.rs"
# core's documentation includes this.
cp "$library/$arch/src/core_arch_docs.md" "$dir/$arch/src"
