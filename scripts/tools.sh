#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make tools; guest.sh and coverage.sh call it, too.
#
# tools.sh [PROGRAM...]: build static programs into the cache: swupload, which is built where none is named,
# fuzz, the tests' fuzzer, and fold, which make coverage runs.

. "$(dirname "$0")/lib.sh"

# build PROGRAM DIR: from the sources in the current directory.
build() {
	local program=$1 dir=$2 target=$machine-unknown-linux-gnu
	in_root cargo build --release --locked --config "$top/tools/.cargo/config.toml" \
		--config "target.$target.linker='$machine-linux-gnu-gcc'" --target "$target" --target-dir "$dir/target"
	mv "$dir/target/$target/release/$program" "$dir"
	rm -rf "$dir/target"
}

need_root
for program in "${@:-swupload}"; do
	case $program in
	fold)
		cd "$top/tests/coverage"
		usually=15 once "$fold" "building fold" build fold
		;;
	fuzz)
		cd "$top/tests/fuzz"
		usually=15 once "$fuzzer" "building the fuzzer" build fuzz
		;;
	swupload)
		cd "$top/tools"
		usually=15 once "$tools" "building swupload" build swupload
		;;
	esac
done
