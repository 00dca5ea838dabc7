# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Volumes: their files for dm-switch@NAME, and a volume to upload to.
#
#   volume_files NAME PAGES PAGE_SIZE MEMBER MEMBER
#                        write the files of a volume whose pages are on the two members in turn
#   make_volume          make /dev/mapper/volume, eight pages of 4 KiB over two disks
#   uploads COMMAND...   make it, and let a command upload a table to it; fail if it does not.  The command gets the
#                        volume's major and minor number, uploads with the userland words 11111111 and 22222222, and
#                        prints the answer

volume_files() {
	echo "0 $(($2 * $3)) switch 2 $3 $4 0 $5 0" >"/etc/dm-switch/$1.table"
	awk -v pages="$2" 'BEGIN { for (page = 0; page < pages; page++) print page % 2 }' >"/etc/dm-switch/$1.hex"
}

# Each byte on a disk is the disk's number.
make_volume() {
	blank_disks 2 64
	for disk in 0 1; do
		head -c 32k /dev/zero | tr '\0' $disk | dd of=/dev/ram$disk bs=32k iflag=fullblock conv=fsync 2>/dev/null
	done
	dmsetup create volume --table "0 64 switch 2 8 /dev/ram0 0 /dev/ram1 0"
}

# owners: print the disk of each page of the volume.
owners() {
	dd if=/dev/mapper/volume bs=4k iflag=direct 2>/dev/null | fold -b -w 4096 | cut -c 1 | tr -d '\n'
}

uploads() {
	make_volume
	expect "the owners before the upload" 00000000 "$(owners)"
	# shellcheck disable=SC2046 # two numbers
	expect "the answer" "0 11111111 22222222 " "$("$@" $(devno volume))"
	expect "the owners after it" 01101001 "$(owners)"
	expect "the userland words" "11111111 22222222" "$(userland volume)"
}
