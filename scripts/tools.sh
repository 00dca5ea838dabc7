#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# tools.sh: build the static swupload, into the cache.

. "$(dirname "$0")/lib.sh"
cd "$top/tools"

build() {
	local dir=$1
	in_root cargo build --release --locked --target-dir "$dir/target"
	mv "$dir/target/release/swupload" "$dir"
	rm -rf "$dir/target"
}

need_root
once "$tools" "building swupload" build
