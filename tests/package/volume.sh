# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# A volume to upload to, and what an upload has to come to.

# make_volume: make /dev/mapper/volume, eight pages of 4 KiB over two devices.  Each byte on the devices is the
# device's number.
make_volume() {
	blank_disks 2 64
	for disk in 0 1; do
		head -c 32k /dev/zero | tr '\0' $disk | dd of=/dev/ram$disk bs=32k iflag=fullblock conv=fsync 2>/dev/null
	done
	dmsetup create volume --table "0 64 switch 2 8 /dev/ram0 0 /dev/ram1 0"
}

# owners: which device each page of the volume comes from.
owners() {
	dd if=/dev/mapper/volume bs=4k iflag=direct 2>/dev/null | fold -b -w 4096 | cut -c 1 | tr -d '\n'
}

# uploads COMMAND...: a command that uploads a table for the device whose numbers stand behind it, with the
# userland words 11111111 and 22222222, and prints the answer, does so.
uploads() {
	make_volume
	expect "the owners before" 00000000 "$(owners)"
	# shellcheck disable=SC2046 # two numbers
	expect "the answer" "0 11111111 22222222 " "$("$@" $(devno volume))"
	expect "the owners" 01101001 "$(owners)"
	expect "the userland words" "11111111 22222222" "$(userland volume)"
}
