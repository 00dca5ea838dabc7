#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# tools.sh [fuzz]: build the static swupload, or the tests' fuzzer, into the cache.

. "$(dirname "$0")/lib.sh"

# build PROGRAM DIR: from the sources in the current directory.
build() {
	local program=$1 dir=$2
	in_root cargo build --release --locked --config "$top/tools/.cargo/config.toml" --target-dir "$dir/target"
	mv "$dir/target/release/$program" "$dir"
	rm -rf "$dir/target"
}

need_root
if [ "${1:-}" = fuzz ]; then
	cd "$top/tests/fuzz"
	once "$fuzzer" "building the fuzzer" build fuzz
else
	cd "$top/tools"
	once "$tools" "building swupload" build swupload
fi
