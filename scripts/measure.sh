#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# bench.sh calls this.
#
# measure.sh FILE: measure what I/O, uploads and devices cost on the kernel that KVER in the environment picks, and
# put it into FILE, as a chapter of docs/BENCHMARKS.md.

. "$(dirname "$0")/guest.sh"

# in_guest NAME PROCESSORS FILE: append to FILE what tests/lib/NAME.sh prints in a guest.
in_guest() {
	boot "$dir/storage.initrd" 3000 "$2" "/t/lib/$1.sh" "$dir/$1" || :
	if [ "$(tail -n 1 "$dir/$1")" != "dm-switch guest: 0" ]; then
		tail -n 20 "$dir/$1" "$dir/$1.log"
		return 1
	fi
	sed '$d' "$dir/$1" >>"$3"
}

dir=$(mktemp -d "$cache/measure.XXXXXX")
trap 'rm -rf "$dir"' EXIT
prepare_guest "$dir"
printf '## Linux %s\n\n' "$KVER" >"$1"
usually=600 step "counting instructions on Linux $KVER" in_guest bench counted "$1"
usually=200 step "reading with two processors on Linux $KVER" in_guest bench-processors 2 "$1"
