# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Running the fuzzer in the guest.

# fuzz ARGUMENT...: run it with the seed= of the kernel's command line, with the module loaded.
#
# What is refused is in the log, thousands of lines, which the fuzzer reads.  On the serial line, which is
# slow, are only errors.  To save time, too, RCU waits for no more than it must.
fuzz() {
	blank_disks 4 $((136 * 8192))
	echo 1 >/sys/kernel/rcu_expedited
	dmesg -n 4
	/t/fuzz "$(parameter seed)" "$@"
	dmesg -n 7
	echo 0 >/sys/kernel/rcu_expedited
}
