# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Disks with a write cache, that count what reaches them.

# cached_disks COUNT: make /dev/cached0 and on, 16 MiB each.
cached_disks() {
	modprobe null_blk nr_devices=0
	grep -q /sys/kernel/config /proc/mounts || mount -t configfs config /sys/kernel/config
	for disk in $(seq 0 $(($1 - 1))); do
		config=/sys/kernel/config/nullb/cached$disk
		mkdir "$config"
		echo 16 >"$config/size"
		echo 512 >"$config/blocksize"
		echo 1 >"$config/memory_backed"
		echo 1 >"$config/cache_size"
		echo 1 >"$config/power"
		echo 2 >"/sys/block/cached$disk/queue/nomerges"
	done
}

# remove_cached_disks: all of them.
remove_cached_disks() {
	for config in /sys/kernel/config/nullb/cached*; do
		echo 0 >"$config/power"
		rmdir "$config"
	done
	umount /sys/kernel/config
}

# disk_counts FIELD COUNT: a number from each disk's statistics: 3 sectors read, 7 sectors written,
# 16 flushes.
disk_counts() {
	for disk in $(seq 0 $(($2 - 1))); do
		awk -v field="$1" '{ print $field }' "/sys/block/cached$disk/stat"
	done | paste -s -d ' '
}

# rise BEFORE AFTER: by how much each of the numbers has risen.
rise() {
	echo "$1 $2" | awk '{
		for (n = 1; n <= NF / 2; n++)
			printf "%s%d", (n > 1 ? " " : ""), $(n + NF / 2) - $n
	}'
}

# flush DEVICE
flush() {
	dd if=/dev/null of="$1" conv=fsync,notrunc 2>/dev/null
}
