# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# RAM disks, whose sectors contain their own names, DISK/SECTOR; disks of scsi_debug; and reading any device's sectors.
#
#   blank_disks COUNT SECTORS          make /dev/ram0 and on; they need memory only where they are written
#   named_disks COUNT SECTORS          the same, with a name in each sector
#   name_sectors DISK FIRST COUNT      write names into sectors of /dev/ramDISK, of disk 0 to 7 and sector 0 to 131071
#   write_names DISK FIRST COUNT       the same for any disk and sector, but slower
#   scsi_disks COUNT SETTING=VALUE...  make /dev/sda and on, at most 4, with settings of scsi_debug; dev_size_mb is 8
#   sectors DEVICE SECTOR COUNT        print sectors of a device, with one O_DIRECT read
#   read_sectors DEVICE SECTOR COUNT   the same, and print nothing
#   names DEVICE SECTOR COUNT          the same, and print their names in one line
#   joined_names                       print the names in the sectors of standard input, in one line

blank_disks() {
	modprobe brd "rd_nr=$1" "rd_size=$(($2 / 2))"
}

named_disks() {
	blank_disks "$1" "$2"
	for disk in $(seq 0 $(($1 - 1))); do
		name_sectors "$disk" 0 "$2"
	done
}

# The disk /dev/vda has the names of 8 disks of 131072 sectors each, one after the other.
name_sectors() {
	dd if=/dev/vda "of=/dev/ram$1" bs=64k iflag=count_bytes,skip_bytes oflag=seek_bytes \
		skip=$((($1 * 131072 + $2) * 512)) seek=$(($2 * 512)) count=$(($3 * 512)) \
		conv=fsync 2>/dev/null
}

write_names() {
	awk -v disk="$1" -v first="$2" -v count="$3" 'BEGIN {
		for (sector = first; sector < first + count; sector++)
			printf "%-511s\n", disk "/" sector
	}' | dd "of=/dev/ram$1" oflag=seek_bytes seek=$(($2 * 512)) conv=fsync 2>/dev/null
}

scsi_disks() {
	scsi_count=$1
	shift
	modprobe sd_mod
	modprobe scsi_debug "add_host=$scsi_count" per_host_store=1 dev_size_mb=8 ndelay=1 "$@"
	for disk in $(echo a b c d | cut -d ' ' -f "-$scsi_count"); do
		until_true [ -b "/dev/sd$disk" ]
	done
}

sectors() {
	dd "if=$1" bs=$(($3 * 512)) count=1 iflag=direct,skip_bytes skip=$(($2 * 512)) 2>/dev/null
}

read_sectors() {
	sectors "$@" >/dev/null
}

names() {
	sectors "$@" | joined_names
}

joined_names() {
	tr -d ' ' | paste -s -d ' '
}
