# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs everything at once over an array, in the guest, for the race= seconds of the kernel's command line: fio that writes
# and verifies, uploads, messages, reloads, suspends, and paths that fail.  Every half minute all of it stops, and the
# memory in use is recorded.  Fails if that grew after the first minute.

. /t/lib/test.sh
. /t/lib/switch.sh
. /t/lib/array.sh
. /t/lib/race.sh
sectors=131072
pages=$((sectors / 8))

# load_on OFFSET ARGUMENT...: write and verify 4 MiB, in random places of the 24 MiB after OFFSET, in MiB.
load_on() {
	offset=$1
	shift
	fio --output-format=terse --terse-version=3 --name=load --filename=/dev/mapper/vol "--offset=${offset}m" \
		--size=24m --io_size=4m --rw=randwrite --randrepeat=0 --bssplit=512/20:4k/40:20k/20:64k/20 \
		--verify=crc32c --verify_fatal=1 "$@" >"/tmp/load$offset" || fail "the load at $offset MiB: fio failed: $(cat "/tmp/load$offset")"
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

# churn: make and free a chunk.
churn() {
	swupload -b 32 -t $pages -o 8192 vol /tmp/few
	swupload -b 32 -t $pages -d 1 vol
}

# reload: reload with the same shape, and with another one, which removes the page table.
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

# fail_paths: let the paths of one member after the other fail and come back.
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

# memory: print the KiB in use, and those of slabs, per-CPU data and vmalloc.  Free pages in the processors' lists, which
# vary by megabytes, do not count as in use.
memory() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	sleep 1
	awk '{ sum[$1] += $2 } END {
		print sum["MemTotal:"] - sum["MemAvailable:"] - 4 * sum["count:"], sum["SUnreclaim:"],
			sum["Percpu:"], sum["VmallocUsed:"]
	}' /proc/meminfo /proc/zoneinfo
}

# together SECONDS: run all of it at once.
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

# At least 8 rounds, so that the comparison below has some.
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
stop_array

# The first two rounds are the first minute.  Of the rounds after these, compare the least of the first third with the least
# of the last third.
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
# grew WHAT KIB LIMIT: print by how much a number grew, and fail if not by less than LIMIT.  A kernel that looks for uses of
# freed memory keeps that for a while; check_leaks has reported lost memory there.
grew() {
	echo "$1: $2 KiB more than after a minute"
	finds_leaks || [ "$2" -lt "$3" ] || fail "$1: grew by $2 KiB; less than $3 are expected"
}

read -r all slabs percpu vmalloc </tmp/growth
grew "in use" "$all" 2048
grew "slabs" "$slabs" 1024
grew "per-CPU data" "$percpu" 256
grew "vmalloc" "$vmalloc" 1024
