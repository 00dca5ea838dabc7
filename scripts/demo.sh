#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# demo.sh NAME IMAGE: show the module and the tool at work, in QEMU: run tests/lib/NAME.sh in a guest that
# has IMAGE.

. "$(dirname "$0")/guest.sh"

name=$1 image=$2
dir=$(mktemp -d "$cache/demo.XXXXXX")
trap 'rm -rf "$dir"' EXIT
prepare_guest "$dir"
step "running the demo in QEMU" boot "$dir/$image.initrd" 120 2 "/t/lib/$name.sh" "$dir/output"
sed '$d' "$dir/output"
if [ "$(tail -n 1 "$dir/output")" != "dm-switch guest: 0" ]; then
	tail -n 20 "$dir/output.log" >&2
	die "the demo failed; above is the end of the guest's kernel log"
fi
