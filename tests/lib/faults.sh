# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Failing allocations: commands in which an allocation may fail, on a switch "vol", and what must then be as before.  A
# test that sources this file sources switch.sh before it; it gets two disks, and defines
#
#   run PROGRAM [ARGUMENT...]      run a program in which an allocation may fail
#
# The commands:
#
#   insert                         load the module
#   create                         make vol
#   create_in_tree                 make a device "own" with a table line of the kernel's own target
#   load_second                    load a second table for vol
#   set_regions ARGUMENT...        send the message set_region_mappings to vol
#   upload                         send the upload that next has prepared
#   next MESSAGE                   prepare an upload, with userland words that no other has
#   attempt COMMAND                run a command; print the error that it prints and what the kernel logs, in one line
#
# The errors, as attempt prints them:
#
#   constructor [OBJECT]           a table is refused, for want of memory for OBJECT
#   reply                          an upload is refused, for want of memory for its answer
#   upload_of OBJECT               an upload is refused, for want of memory for OBJECT
#   message_of OBJECT              the message is refused, for want of memory for OBJECT
#
# The state:
#
#   seen                           print all that the module and device-mapper show
#   pages                          print the names of some sectors of vol, at the borders of chunks
#   on_disks DISKS                 fail if these sectors come from other disks
#   taken DISKS                    the same, and fail if the last upload was not accepted

vol=/dev/mapper/vol

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
		# It says that there is no family.
		swupload -n 1 -t 1 -d 0 0:0 2>&1 || :
	fi
}

pages() {
	names $vol 8190 4
	names $vol 16374 12
}

attempt() {
	{
		eval "$1" 2>&1 >/dev/null | sed -n '1s/.*: //p'
		log | sed -n 's/^dm_switch: //p; s/^device-mapper: table: [0-9:]*: //p'
	} | paste -s -d ';'
}

insert() {
	# busybox's insmod tries twice to load a file, and once to load a pipe.
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

# How many uploads next has prepared.
uploads=0
next() {
	uploads=$((uploads + 1))
	printf '%s' "$1" | sed "s/^\(.\{16\}\).\{16\}/\1$(u32 $uploads $uploads)/" >/tmp/message
}

taken() {
	expect "the userland words" "$(printf '%08x %08x' $uploads $uploads)" "$(userland vol)"
	on_disks "$1"
}

on_disks() {
	expect "the disks of these pages" "$1" "$(pages | sed 's,/[0-9]*,,g' | tr -d ' ' | paste -s -d ' ')"
}

blank_disks 2 24578
for disk in 0 1; do
	name_sectors $disk 8184 16
	name_sectors $disk 16368 24
done
modprobe dm-mod
