# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Switches and their page tables.  A page table is a file of one page a line, the index of its owner.
#
#   switch_line PAGE_SIZE DEVICE...    print a table line's arguments, for devices that are used from sector 0 on
#   make_switch NAME SECTORS PAGE_SIZE DEVICE...
#                                      make a switch of such devices
#   replace NAME TABLE                 load a table for a mapped device that has one, and resume the device
#   target_length SECTORS              set the length of the switches that refuses tries to make; it is 64 at first
#   refuses TEXT ARGUMENT...           fail if the arguments make a switch, or are refused for another reason than TEXT
#   counts NAME                        print a switch's counts of I/Os that had a route, and that had none
#   counted NAME WANTED COMMAND...     run a command; fail if it does not add WANTED to these counts
#   has NAME SECTOR NAMES              fail if a switch's sectors from SECTOR on have other names than NAMES
#   random_pages PAGES DEVICES         print a page table, the same at each run
#   pieces FILE PAGE_SIZE SECTOR COUNT
#                                      print into how many pieces an I/O is cut: one for neighbours of the same owner
#   expect_pages FILE PAGE_SIZE DEVICE SECTOR COUNT
#                                      fail if sectors of a switch over named disks come from others than FILE names
#   expect_left FILE PAGE_SIZE DISK DEVICE FROM TO
#                                      the first 960 sectors of a device had the names of DISK: fail unless exactly
#                                      those are empty that are from FROM to TO, and in pages whose owner is DISK

switch_line() {
	page_size=$1
	shift
	printf '%s %s' $# "$page_size"
	printf ' %s 0' "$@"
}

make_switch() {
	switch_name=$1 switch_len=$2
	shift 2
	dmsetup create "$switch_name" --table "0 $switch_len switch $(switch_line "$@")"
}

replace() {
	dmsetup load "$1" --table "$2"
	dmsetup resume "$1"
}

target_length() {
	target_len=$1
}
target_length 64

# What was opened for the switch must be closed again: neither a disk nor the module stays in use.
refuses() {
	refuses_text=$1
	shift
	mark
	fails dmsetup create refused --table "0 $target_len switch $*"
	log | grep -qx "device-mapper: table: [0-9:]*: switch: $refuses_text (-EINVAL)" ||
		fail "$*: not refused with: $refuses_text
$(log)"
	for module in brd dm_switch; do
		expect "users of $module after $*" 0 "$(cat "/sys/module/$module/refcnt")"
	done
}

counts() {
	dmsetup status "$1" | awk '{ print $(NF - 1), $NF }'
}

counted() {
	counted_name=$1 counted_wanted=$2 counted_before=$(counts "$1")
	shift 2
	"$@"
	expect "the counts after $*" "$counted_wanted" "$(echo "$counted_before" "$(counts "$counted_name")" |
		awk '{ print $3 - $1, $4 - $2 }')"
}

has() {
	expect "the sectors of $1 from $2 on" "$3" \
		"$(names "/dev/mapper/$1" "$2" "$(echo "$3" | wc -w)")"
}

random_pages() {
	awk -v pages="$1" -v devices="$2" 'BEGIN {
		srand(pages)
		for (page = 0; page < pages; page++)
			printf "%x\n", int(rand() * devices)
	}'
}

pieces() {
	awk -v size="$2" -v first="$3" -v last=$(($3 + $4 - 1)) -v owner=none '
		NR - 1 >= int(first / size) && NR - 1 <= int(last / size) && $1 != owner { owner = $1; count++ }
		END { print count }' "$1"
}

expect_pages() {
	awk -v size="$2" -v first="$4" -v count="$5" '
		{ disk[NR - 1] = $1 }
		END {
			for (sector = first; sector < first + count; sector++)
				print disk[int(sector / size)] "/" sector
		}' "$1" >/tmp/wanted
	sectors "$3" "$4" "$5" | tr -d ' ' >/tmp/got
	same_lines "sectors from $4 on of $3"
}

expect_left() {
	awk -v size="$2" -v disk="$3" -v from="$5" -v to="$6" '
		{ owner[NR - 1] = $1 }
		END {
			for (sector = 0; sector < 960; sector++)
				if (sector < from || sector >= to || owner[int(sector / size)] != disk)
					print disk "/" sector
		}' "$1" >/tmp/wanted
	sectors "$4" 0 960 | tr -d ' \000' >/tmp/got
	same_lines "what $4 has left"
}
