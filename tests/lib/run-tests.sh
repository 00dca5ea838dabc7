# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs tests in the guest, one after the other: those that tests= on the kernel's command line names, for so
# many seconds each as seconds= says.  Ends behind the first that fails, for nobody knows what that leaves
# behind.

. /t/lib/test.sh

# loaded: the kernel modules, the last one first.
loaded() {
	cut -d ' ' -f 1 /proc/modules
}

# clean: have the guest as it was.  A test removes its mapped devices; what those stood on, and what
# was loaded, goes here.
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

# The disk with the names of sectors.
modprobe virtio_blk
# The hosts of scsi_debug stay for good, and scsi_mod, loaded again, would give their numbers once more.
stays="$(loaded | tr '\n' ' ') scsi_mod scsi_common"
tests=$(parameter tests | tr , ' ')
for test in $tests; do
	echo "dm-switch guest: test $test" | tee /dev/kmsg
	# What went wrong before, also while the kernel started, may have it look no more.
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
	clean || fail "the test left something behind"
	# What one of the tests has lost is still lost.
	if [ "$test" = "${tests##* }" ]; then
		check_leaks
	fi
	check_log
	echo "dm-switch guest: passed $test $(($(uptime) - start))"
done
