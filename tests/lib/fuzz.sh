# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Running the fuzzer in the guest.
#
#   fuzz ARGUMENT...   make four disks, and run the fuzzer; the module must be loaded

# The fuzzer reads the log, in which each refusal has a line: thousands of them.  Only errors go to the serial line,
# which is slow.  Expedited grace periods of RCU save time, too.
fuzz() {
	blank_disks 4 $((136 * 8192))
	echo 1 >/sys/kernel/rcu_expedited
	dmesg -n 4
	/t/fuzz "$@"
	dmesg -n 7
	echo 0 >/sys/kernel/rcu_expedited
}
