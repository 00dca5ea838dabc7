# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# The machine that the tests run in: its disks and its reboots.  A test that reboots the machine is started again after
# the reboot, from its beginning: it asks step how far it got.
#
#   disk SERIAL           print the path of the machine's disk with this serial number
#   step TEST             print the step that the test is at: 1, or that of the last reboot_to
#   reboot_to TEST STEP   reboot the machine, after which the test is at this step; do not return
#   reboot_by COMMAND...  reboot the machine with a command, and do not return

disk() {
	echo "/dev/disk/by-id/virtio-$1"
}

step() {
	cat "/t/$1.step" 2>/dev/null || echo 1
}

# Only the step is synced: a test may have data that cannot be written any more.
reboot_to() {
	echo "$2" >"/t/$1.step"
	sync "/t/$1.step"
	reboot_by systemctl reboot
}

# scripts/check-package.sh boots a machine again that says this.
reboot_by() {
	echo "dm-switch guest: reboot"
	"$@"
	sleep infinity
}
