# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs tests in the guest, one after the other: those of tests= on the kernel's command line, each for at most seconds=
# seconds.  Ends after the first one that fails, because its state may affect the others.

. /t/lib/test.sh

# loaded: print the names of the loaded kernel modules, the last one first.
loaded() {
	cut -d ' ' -f 1 /proc/modules
}

# clean: undo what a test did.  A test removes its mapped devices; the devices under these, and the modules, are removed
# here.
clean() {
	for loop in $(losetup -a | cut -d : -f 1); do
		losetup -d "$loop"
	done
	rm -rf /tmp/*
	for module in $(loaded); do
		case " $stays " in
		*" $module "*) ;;
		*) rmmod "$module" || return 1 ;;
		esac
	done
}

# For the disk with the names of sectors.
modprobe virtio_blk
# A module that counts what it does: see scripts/coverage.sh.
if [ -n "$(parameter coverage)" ]; then
	insmod /t/coverage.ko
	trap 'echo "dm-switch guest: counters $(cat /sys/kernel/debug/dm_switch/counters)"' EXIT
fi
# The hosts of scsi_debug are never freed, and scsi_mod, if it were loaded again, would use their numbers again.
stays="$(loaded | tr '\n' ' ') scsi_mod scsi_common"
tests=$(parameter tests | tr , ' ')
for test in $tests; do
	echo "dm-switch guest: test $test" | tee /dev/kmsg
	# After an earlier complaint, also one during its start, the kernel may not check any more.
	check_log
	begin_log
	start=$(uptime)
	status=0
	timeout "$(parameter seconds)" dash -eu /t/lib/run-test.sh "$test" || status=$?
	case $status in
	0) ;;
	143) fail "the test did not end in $(parameter seconds) seconds" ;;
	*) exit $status ;;
	esac
	clean || fail "a module cannot be unloaded after the test"
	# One check at the end finds the memory that any of the tests has lost.
	if [ "$test" = "${tests##* }" ]; then
		check_leaks
	fi
	check_log
	echo "dm-switch guest: passed $test $(($(uptime) - start))"
done
