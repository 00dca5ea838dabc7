# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# What the tests of memory that cannot be had share: what may fail, on a device "vol", and what is then to be
# as it was.  A test defines "run", which runs a program in which allocations may fail.

vol=/dev/mapper/vol

# seen: what there is to be seen of the module and its devices.
seen() {
	cat /sys/module/brd/refcnt
	dmsetup table
	dmsetup table --inactive
	dmsetup status
	if [ -e /sys/module/dm_switch ]; then
		cat /sys/module/dm_switch/refcnt
		dmsetup message vol 0 chunk_hits 2>&1 || :
	else
		dmsetup targets
		# Says that there is no family.
		swupload -n 1 -t 1 -d 0 0:0 2>&1 || :
	fi
}

# pages: where some pages at the borders of chunks are.
pages() {
	names $vol 8190 4
	names $vol 16374 12
}

# attempt COMMAND: how a command that fails complains, and what the module and device-mapper then log,
# in one line.
attempt() {
	{
		eval "$1" 2>&1 >/dev/null | sed -n '1s/.*: //p'
		log | sed -n 's/^dm_switch: //p; s/^device-mapper: table: [0-9:]*: //p'
	} | paste -s -d ';'
}

# The commands that are tried.
insert() {
	# busybox's insmod tries a file twice, and what comes through a pipe once.
	# shellcheck disable=SC2002
	cat /t/dm-switch.ko | run insmod /proc/self/fd/0
}
create() {
	run dmsetup create vol --table "0 24577 switch $(switch_line 1 /dev/ram0 /dev/ram1)"
}
create_in_tree() {
	run dmsetup create own --table "0 24577 switch 2 1 0 /dev/ram0 0 /dev/ram1 0"
}
set_regions() {
	run dmsetup message vol 0 set_region_mappings "$@"
}
load_second() {
	run dmsetup load vol --table "0 24577 switch $(switch_line 8 /dev/ram0 /dev/ram1)"
}
upload() {
	run swupload -r /tmp/message
}

# How they are refused: a device, an upload for want of the answer or of something else, a message.
constructor() {
	echo "Cannot allocate memory;switch: Cannot allocate ${1:-redirect context} (-ENOMEM)"
}
reply() {
	echo "Cannot allocate memory (os error 12);get_page_tbl cannot allocate reply message"
}
upload_of() {
	echo "Cannot allocate Page Table $1 (status 12);get_page_tbl WARNING: Cannot allocate Page Table $1"
}
message_of() {
	echo "Cannot allocate memory;Cannot allocate Page Table $1"
}

# next MESSAGE: the message to upload, with userland words of its own.
uploads=0
next() {
	uploads=$((uploads + 1))
	printf '%s' "$1" | sed "s/^\(.\{16\}\).\{16\}/\1$(u32 $uploads $uploads)/" >/tmp/message
}

# taken DISKS: the upload was accepted, and the pages are on these disks.
taken() {
	expect "the userland words" "$(printf '%08x %08x' $uploads $uploads)" "$(userland vol)"
	on_disks "$1"
}

# on_disks DISKS: the pages that "pages" reads come from these disks.
on_disks() {
	expect "the disks" "$1" "$(pages | sed 's,/[0-9]*,,g' | tr -d ' ' | paste -s -d ' ')"
}

blank_disks 2 24578
for disk in 0 1; do
	name_sectors $disk 8184 16
	name_sectors $disk 16368 24
done
modprobe dm-mod
