# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# What all of the guest's tests share: waiting, the guest, the module.  A test is sourced after this file, with set -eu:
# a command that fails fails the test, and so does a complaint in the kernel's log.
#
#   rise BEFORE AFTER        print by how much each number of AFTER is larger than that of BEFORE
#   repeat COUNT FORMAT      print FORMAT for each number from 0 to COUNT - 1, which replaces one or two %d in it
#   until_true COMMAND...    repeat the command until it succeeds; fail after 20 seconds
#   parameter NAME           print a parameter of the kernel's command line
#   uptime                   print the guest's uptime in seconds
#   load                     load device-mapper and the module
#   unload                   remove all mapped devices, and unload the module
#   expect_users COUNT MODULE
#                            fail if a kernel module has another number of users
#
# It sources these files, whose functions all tests have, too.

. /t/lib/checks.sh
. /t/lib/log.sh
. /t/lib/disks.sh
. /t/lib/messages.sh

rise() {
	echo "$1 $2" | awk '{
		for (n = 1; n <= NF / 2; n++)
			printf "%s%d", (n > 1 ? " " : ""), $(n + NF / 2) - $n
	}'
}

repeat() {
	awk -v count="$1" -v format="$2" 'BEGIN {
		for (n = 0; n < count; n++)
			printf format, n, n
	}'
}

until_true() {
	for _ in $(seq 200); do
		if "$@"; then
			return
		fi
		sleep 0.1
	done
	fail "not true in 20 seconds: $*"
}

parameter() {
	sed -n "s/.* $1=\([^ ]*\).*/\1/p" /proc/cmdline
}

uptime() {
	cut -d . -f 1 /proc/uptime
}

load() {
	modprobe dm-mod
	insmod /t/dm-switch.ko
}

unload() {
	dmsetup remove_all
	rmmod dm_switch
}

expect_users() {
	expect "users of the module $2" "$1" "$(cat "/sys/module/$2/refcnt")"
}
