# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Everything together over an array, in the guest, for as many seconds as race= on the kernel's command line
# says: fio that writes, reads back and verifies, uploads, messages, tables that are reloaded, suspends, and paths
# that fail.  Every half minute all of it stops, and the memory that is in use then is noted.

. /t/lib/test.sh
. /t/lib/switch.sh
. /t/lib/array.sh
. /t/lib/race.sh
sectors=131072
pages=$((sectors / 8))

# load_on OFFSET ARGUMENT...: write and read back 4 MiB, in random places behind so many MiB.
load_on() {
	offset=$1
	shift
	fio --output-format=terse --terse-version=3 --name=load --filename=/dev/mapper/vol "--offset=${offset}m" \
		--size=24m --io_size=4m --rw=randwrite --randrepeat=0 --bssplit=512/20:4k/40:20k/20:64k/20 \
		--verify=crc32c --verify_fatal=1 "$@" >"/tmp/load$offset" || fail "$(cat "/tmp/load$offset")"
	awk -F ';' '{ print $6, $47 }' "/tmp/load$offset" >>/tmp/transferred
}

move() {
	for bits in 2 32; do
		swupload -b $bits -t $pages vol /tmp/even
		swupload -b $bits -t $pages vol /tmp/odd
		for chunk in 0 1; do
			swupload -b $bits -t $pages -d $chunk vol
		done
	done
	dmsetup message vol 0 set_region_mappings 0:1 :2 :0 R3,1000
}

# churn: a chunk that is freed and made.
churn() {
	swupload -b 32 -t $pages -o 8192 vol /tmp/few
	swupload -b 32 -t $pages -d 1 vol
}

# reload: with the same shape, and with another, which leaves no page table.
reload() {
	for size in 8 8 16; do
		# shellcheck disable=SC2086 # words
		replace vol "0 $sectors switch $(switch_line $size $devices)"
		dmsetup suspend vol
		dmsetup resume vol
	done
}

ask() {
	dmsetup status
	dmsetup table
	dmsetup message vol 0 chunk_hits
} >/dev/null

# fail_paths: of one member after the other, until all is on the others' paths.
fail_paths() {
	for number in 0 1 2; do
		for way in 1 2; do
			connect 0 "$number" $way
			sleep 1
		done
		for way in 1 2; do
			connect 1 "$number" $way
			reinstate "$number" $way
		done
		dmsetup message "member$number" 0 switch_group 1
	done
}

# memory: KiB in use, without the free pages that processors hold to hand them out next, which come and go by the
# megabyte; and those of them that slabs, per-CPU data and vmalloc have.
memory() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	sleep 1
	awk '{ sum[$1] += $2 } END {
		print sum["MemTotal:"] - sum["MemAvailable:"] - 4 * sum["count:"], sum["SUnreclaim:"],
			sum["Percpu:"], sum["VmallocUsed:"]
	}' /proc/meminfo /proc/zoneinfo
}

# together SECONDS: all of it.
together() {
	again load_on 0 --ioengine=libaio --iodepth=8 --direct=1
	again load_on 32 --ioengine=psync --fsync=32
	again move
	again churn
	again reload
	again ask
	again fail_paths
	end=$(($(uptime) + $1))
	while [ ! -e /tmp/over ] && [ "$(uptime)" -lt $end ]; do
		sleep 1
	done
	stop
}

load
blank_disks 1 $sectors
dd if=/dev/zero of=/dev/ram0 bs=1M oflag=direct 2>/dev/null || :
start_array 3 /dev/ram0
make_multipaths $sectors
devices="/dev/mapper/member0 /dev/mapper/member1 /dev/mapper/member2"
# shellcheck disable=SC2086 # words
make_switch vol $sectors 8 $devices
random_pages $pages 3 >/tmp/even
tr 012 120 </tmp/even >/tmp/odd
head -n 64 /tmp/even >/tmp/few

# At least so many rounds that the comparison below has some.
over=$(($(uptime) + $(parameter race)))
round=0
echo "seconds: KiB in use, of which slabs, per-CPU data, vmalloc"
while [ "$(uptime)" -lt $over ] || [ $round -lt 8 ]; do
	together 30
	check_log
	begin_log
	echo "$(uptime): $(memory)" | tee -a /tmp/memory
	round=$((round + 1))
done
sort /tmp/rounds | uniq -c
awk '{ read += $1; written += $2 } END {
	printf "fio: %d MiB written, %d MiB read and verified\n", written / 1024, read / 1024
}' /tmp/transferred
unload
check_leaks
check_log
# Lockdep takes the removal of a multipath device's paths, where that was written back to, for a lock that waits for
# itself: the disks of both have their locks in one class.
stop_array

# The first two rounds are the first minute; the least of the third of the rounds behind them against the least of
# the last third.
awk 'NR > 2 { for (n = 1; n <= 4; n++) kib[NR - 2, n] = $(n + 1) }
	function least(first, last, n,  round, result) {
		result = kib[first, n]
		for (round = first; round <= last; round++)
			if (kib[round, n] < result)
				result = kib[round, n]
		return result
	}
	END {
		rounds = NR - 2
		third = int(rounds / 3)
		for (n = 1; n <= 4; n++)
			print least(rounds - third + 1, rounds, n) - least(1, third, n)
	}' /tmp/memory | paste -s -d ' ' >/tmp/growth
# grew WHAT KIB MOST: say by how much it did; less than so much comes and goes by itself.  A kernel that looks for
# uses of freed memory holds that back, and has said what was lost.
grew() {
	echo "$1: $2 KiB more than after a minute"
	finds_leaks || [ "$2" -lt "$3" ] || fail "the memory in use grew"
}

read -r all slabs percpu vmalloc </tmp/growth
grew "in use" "$all" 2048
grew "slabs" "$slabs" 1024
grew "per-CPU data" "$percpu" 256
grew "vmalloc" "$vmalloc" 1024
