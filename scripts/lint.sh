#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make lint.
#
# lint.sh: rustfmt, clippy as kbuild runs it, shellcheck, mandoc, and whether the patches of make faults apply; any
# warning is an error.

. "$(dirname "$0")/lib.sh"
cd "$top"
need_kernel

format() {
	in_root rustfmt --check --edition 2021 --config-path "$KDIR/source/.rustfmt.toml" dm-switch.rs \
		compat/{lib,macros,compiler_builtins}.rs
	in_root rustfmt --check --edition 2021 tools/swupload.rs tests/fuzz/main.rs tests/coverage/fold.rs \
		tests/swupload/fuzz.rs
	in_root rustfmt --check --edition 2021 --config-path "$KDIR/source/.rustfmt.toml" tests/policy/{bindings,loom-core/lib}.rs
}

# clippy_module CRATE: the module is compiled in a copy, for a compiler's warnings show only when it runs.
clippy_module() {
	local copy status=0
	copy=$(mktemp -d "$cache/lint.XXXXXX")
	cp -r Kbuild dm-switch.h dm-switch.rs helpers.c compat "$copy"
	in_builder make -s -C "$KDIR" "M=$copy" "CRATE=$1" CLIPPY=1 modules 2>&1 | tee "$copy/log" || status=1
	! grep -q warning "$copy/log" || status=1
	rm -rf "$copy"
	return "$status"
}

# clippy_tool DIR [ARGUMENT...]
clippy_tool() {
	cd "$1"
	in_root cargo clippy --locked --all-targets "${@:2}" --target-dir "$cache/lint-target" -- -D warnings
}

# clippy_tests FEATURE...: the tests on the host, with these features of their package.
clippy_tests() {
	in_root tests/policy/cargo.sh clippy --locked --lib --tests --features "$*" -- -D warnings
}

shell() {
	in_root shellcheck -s bash -x -P scripts scripts/*.sh tests/host/* .ci/run tools/bash-completion/*
	in_root shellcheck compat/*.sh tests/policy/cargo.sh
	# What the guest's scripts source has other paths there.
	in_root shellcheck -s sh -e SC1090,SC1091 tests/lib/*.sh tests/lib/init tests/sh/* \
		tests/package/*.sh tests/package/sh/* debian/*.{postinst,postrm,prerm} tools/dm-switch-volume udev/dm-switch-member udev/hooks/dm-switch
}

manual() {
	in_root mandoc -T lint -W warning docs/dm-switch.4 tools/swupload.8 tools/dm-switch-volume.8
}

patches() {
	local patch
	for patch in tests/faults/*; do
		git apply --check "$patch"
	done
}

need_root
step "the patches in tests/faults" patches
step "rustfmt" format
step "clippy of the module" clippy_module kernel
usually=45 step "clippy of the module and the stand-in" clippy_module compat
step "clippy of the tool" clippy_tool tools
step "clippy of the fuzzer" clippy_tool tests/fuzz
step "clippy of fold" clippy_tool tests/coverage
step "clippy of swupload's fuzzer" clippy_tool tests/swupload --no-default-features
step "clippy of the tests on the host" clippy_tests
step "clippy of the tests with loom" clippy_tests loom
step "shellcheck" shell
step "mandoc" manual
