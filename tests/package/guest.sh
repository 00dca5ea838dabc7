#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the tests in /t/sh in a Debian that was booted, and says on the second serial line how each went.

exec </dev/null >/dev/ttyS1 2>&1
stty raw <&1
cd /tmp || exit
for test in /t/sh/*; do
	name=$(basename "$test")
	start=$(cut -d . -f 1 /proc/uptime)
	dmesg -c >/dev/null
	if dash -eu /t/lib/run-test.sh "$name"; then
		echo "dm-switch guest: passed $name $(($(cut -d . -f 1 /proc/uptime) - start))"
	else
		echo "dm-switch guest: failed $name"
	fi
	dmsetup remove_all
	for module in dm_switch brd; do
		[ ! -e /sys/module/$module ] || rmmod $module
	done
done
echo "dm-switch guest: end"
