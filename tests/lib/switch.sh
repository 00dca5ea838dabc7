# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Switches, and what to ask them and the kernel.

# read_sectors DEVICE SECTOR COUNT: read sectors with one O_DIRECT read.
read_sectors() {
	sectors "$@" >/dev/null
}

# has NAME SECTOR NAMES: the sectors of a switch from SECTOR on have these names.
has() {
	expect "the sectors of $1 from $2 on" "$3" \
		"$(names "/dev/mapper/$1" "$2" "$(echo "$3" | wc -w)")"
}

# switch_line PAGE_SIZE DEVICE...: the arguments of a switch that uses the devices from sector 0 on.
switch_line() {
	page_size=$1
	shift
	printf '%s %s' $# "$page_size"
	printf ' %s 0' "$@"
}

# make_switch NAME SECTORS PAGE_SIZE DEVICE...
make_switch() {
	switch_name=$1 switch_len=$2
	shift 2
	dmsetup create "$switch_name" --table "0 $switch_len switch $(switch_line "$@")"
}

# replace NAME TABLE: load a table for a device that has one, and make it live.
replace() {
	dmsetup load "$1" --table "$2"
	dmsetup resume "$1"
}

# counts NAME: how many I/Os were remapped, and how many unmapped.
counts() {
	dmsetup status "$1" | awk '{ print $(NF - 1), $NF }'
}

# counted NAME WANTED COMMAND...: run a command that is to add so much to the counts.
counted() {
	counted_name=$1 counted_wanted=$2 counted_before=$(counts "$1")
	shift 2
	"$@"
	expect "the counts after $*" "$counted_wanted" "$(echo "$counted_before" "$(counts "$counted_name")" |
		awk '{ print $3 - $1, $4 - $2 }')"
}

# random_pages PAGES DEVICES: a page table, one page a line, the same at each run.
random_pages() {
	awk -v pages="$1" -v devices="$2" 'BEGIN {
		srand(pages)
		for (page = 0; page < pages; page++)
			printf "%x\n", int(rand() * devices)
	}'
}

# expect_pages FILE PAGE_SIZE DEVICE SECTOR COUNT: sectors of a switch over named disks come from
# the disks that FILE, a page table of one page a line, names.
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

# pieces FILE PAGE_SIZE SECTOR COUNT: into how many an I/O is cut, by FILE as above: pages after one another that have
# the same owner are one.
pieces() {
	awk -v size="$2" -v first="$3" -v last=$(($3 + $4 - 1)) -v owner=none '
		NR - 1 >= int(first / size) && NR - 1 <= int(last / size) && $1 != owner { owner = $1; count++ }
		END { print count }' "$1"
}

# same_lines WHAT: /tmp/got has what /tmp/wanted has.
same_lines() {
	cmp -s /tmp/wanted /tmp/got || fail "$1, wanted and got:
$(diff /tmp/wanted /tmp/got | cut -c 1-300 | sed -n 1,30p)"
}

# left FILE PAGE_SIZE DISK DEVICE FROM TO: of 960 sectors with the names of a disk's the device has all but
# those from FROM to TO of the pages that FILE, a page table of one page a line, gives to the disk.
left() {
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

# mark: what log prints begins here.
mark() {
	log_mark=$((${log_mark:-0} + 1))
	echo "mark $log_mark." >/dev/kmsg
}

# log: what the kernel logged since the mark, without the times, and without what it says of a processor that is slow.
log() {
	dmesg | sed "1,/ mark $log_mark\\.\$/d; s/^\\[[^]]*\\] //; /^hrtimer: interrupt took /d"
}

# told: what the disks of the module logdisk were sent since the mark, in one line.
told() {
	log | sed -n 's/^logdisk: //p' | paste -s -d ';'
}

# length SECTORS: of the switches that refuses tries to make, from now on.
length() {
	target_len=$1
}
length 64

# refuses TEXT ARGUMENT...: no switch is made from the arguments, for the reason TEXT, and neither a
# disk nor the module stays in use.
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
