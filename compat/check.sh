#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# check.sh CONFIG VERSION CRATE RUSTC BINDGEN CC...: print in one line why the module cannot be built for the kernel
# of this version (6.12, say) with the configuration in the file CONFIG, and what helps.  CRATE is the crate `kernel`
# that it would be built with, RUSTC, BINDGEN and CC are the programs.  Print nothing if it can be built.

set -eu

# The compiler is none of make's jobs here.
unset MAKEFLAGS MFLAGS

config=$1 version=$2 crate=$3 rustc=$4 bindgen=$5
shift 5

# refuse REASON
refuse() {
	printf '%s\n' "$1"
	exit
}

# is_there PROGRAM
is_there() {
	command -v "$1" >/dev/null
}

# value NAME: of an option; 0 if it is not set.
value() {
	sed -n "s/^CONFIG_$1=//p" "$config" | grep . || echo 0
}

# check_kernel: the series, and what the module uses of the kernel.
check_kernel() {
	if [ "${version%%.*}" -lt 6 ] || [ "$version" = 6.0 ]; then
		refuse "the kernel is Linux $version: the module is for 6.1 and newer"
	fi
	for option in BLK_DEV_DM NET; do
		if [ "$(value $option)" = 0 ]; then
			refuse "the kernel has no CONFIG_$option, which the module needs: take another kernel"
		fi
	done
}

# check_cc COMMAND...: the C compiler.  A newer one than the kernel's is no obstacle: the kernel's build warns of it.
check_cc() {
	is_gcc=$(value CC_IS_GCC)
	if [ "$is_gcc" = y ]; then
		wanted=$(value GCC_VERSION) compiler=gcc macro=__GNUC__
	else
		wanted=$(value CLANG_VERSION) compiler=clang macro=__clang_major__
	fi
	wanted=$((wanted / 10000))
	if ! is_there "$1"; then
		refuse "there is no C compiler $1: install the package $compiler-$wanted or $compiler, or name another one with CC="
	fi
	# clang has gcc's macros, too.
	found=$(echo "$macro __clang_major__" | "$@" -E -P -x c - 2>/dev/null | tail -n 1) || found=
	case $is_gcc:$found in
	y:*[0-9]\ __clang_major__ | [!y]*:*[0-9]\ *[0-9]) ;;
	*) refuse "the C compiler $1 is not $compiler, with which the kernel was built: install $compiler-$wanted, and name it with CC=$compiler-$wanted" ;;
	esac
	if [ "${found%% *}" -lt "$wanted" ]; then
		refuse "the C compiler $1 is $compiler ${found%% *}, older than the kernel's, $compiler $wanted: install $compiler-$wanted, and name it with CC=$compiler-$wanted"
	fi
}

check_rust() {
	if ! is_there "$rustc"; then
		refuse "there is no Rust compiler $rustc: install the packages rustc and rust-src, on Debian 12 rustc-web and rust-web-src"
	fi
	rust=$("$rustc" --version 2>/dev/null) || rust="one that does not run"
	minor=$(expr "$rust" : 'rustc 1\.\([0-9]*\)') || minor=0
	if [ "$minor" -lt 85 ]; then
		refuse "the Rust compiler is $rust, and has to be 1.85 or newer: install a newer rustc and rust-src, on Debian 12 rustc-web and rust-web-src"
	fi
	if [ "$crate" = compat ]; then
		check_library
	fi
}

# check_library: the source of the compiler's library, of which the stand-in's core is made.  Debian's compiler and
# source are packages of their own, and may differ.
check_library() {
	source=$("$rustc" --print sysroot)/lib/rustlib/src/rust
	if [ ! -e "$source/library/core/src/lib.rs" ]; then
		refuse "the Rust compiler has no source of its library in $source/library: install the package rust-src, or \
for rustc-web rust-web-src"
	fi
	name=$(basename "$(realpath "$source")")
	number=$(expr "$rust" : 'rustc \([0-9.]*\)')
	case $name in
	rustc-"$number") ;;
	rustc-[0-9]*) refuse "the source of Rust's library is that of $name, and the compiler is $number: install rust-src in the \
version of rustc" ;;
	esac
}

check_bindgen() {
	if ! is_there "$bindgen"; then
		refuse "there is no $bindgen: install the package bindgen"
	fi
	if ! said=$("$bindgen" /dev/null -- -x c 2>&1); then
		case $said in
		*libclang*) refuse "$bindgen finds no libclang: install the package libclang-dev" ;;
		*) refuse "$bindgen does not work: $(printf '%s\n' "$said" | head -n 1)" ;;
		esac
	fi
}

# check_flags: what the kernel's configuration asks of compiled code.
check_flags() {
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	if ! said=$(sh "$(dirname "$0")/flags.sh" "$config" "$rustc" "$dir" 2>&1); then
		said=$(printf '%s\n' "$said" | tail -n 1)
		refuse "${said#dm-switch: }"
	fi
}

check_kernel
check_cc "$@"
check_rust
check_bindgen
if [ "$crate" = compat ]; then
	check_flags
fi
