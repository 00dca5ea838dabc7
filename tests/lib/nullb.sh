# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Disks of the null_blk driver: with a write cache, with large blocks, with zones; and counting what reaches them.
#
#   null_disk NAME [SETTING=VALUE...]   make /dev/NAME, of 16 MiB, with these settings of null_blk
#   cached_disks COUNT                  make /dev/cached0 and on, which have a write cache
#   remove_null_disks                   remove all of these disks
#   disk_counts FIELD COUNT             print a field of the statistics of /dev/cached0 and on: 3 sectors read, 7 sectors
#                                       written, 16 flushes
#   flush DEVICE                        flush a device

null_disk() {
	modprobe null_blk nr_devices=0
	grep -q /sys/kernel/config /proc/mounts || mount -t configfs config /sys/kernel/config
	config=/sys/kernel/config/nullb/$1
	mkdir "$config"
	shift
	for setting in size=16 memory_backed=1 "$@" power=1; do
		echo "${setting#*=}" >"$config/${setting%%=*}"
	done
}

cached_disks() {
	for disk in $(seq 0 $(($1 - 1))); do
		null_disk "cached$disk" blocksize=512 cache_size=1
		echo 2 >"/sys/block/cached$disk/queue/nomerges"
	done
}

remove_null_disks() {
	for config in /sys/kernel/config/nullb/*/; do
		echo 0 >"$config/power"
		rmdir "$config"
	done
	umount /sys/kernel/config
}

disk_counts() {
	for disk in $(seq 0 $(($2 - 1))); do
		awk -v field="$1" '{ print $field }' "/sys/block/cached$disk/stat"
	done | paste -s -d ' '
}

flush() {
	dd if=/dev/null of="$1" conv=fsync,notrunc 2>/dev/null
}
