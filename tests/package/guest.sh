#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the tests in /t/sh in a Debian that was booted, and prints on the second serial line how each went.  If a test
# reboots the machine, it is started again after that.

. /t/lib/test.sh
exec </dev/null >/dev/ttyS1 2>&1
stty raw <&1
# The kernel's command line starts this script in the place of the usual target.
systemctl start multi-user.target
cd /tmp || exit
for test in /t/sh/*; do
	name=$(basename "$test")
	[ ! -e "/t/$name.done" ] || continue
	start=$(uptime)
	if dash -eu /t/lib/run-test.sh "$name" && (check_log); then
		echo "dm-switch guest: passed $name $(($(uptime) - start))"
	else
		echo "dm-switch guest: failed $name"
	fi
	touch "/t/$name.done"
	begin_log
	dmsetup remove_all
	for module in dm_switch brd; do
		[ ! -e /sys/module/$module ] || rmmod $module
	done
done
echo "dm-switch guest: end"
