# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# The benchmarks that count instructions, in the guest: prints them as tables of BENCHMARKS.md.

. /t/lib/test.sh
. /t/lib/measure.sh

# Pages of the largest table that an upload can make.
most=1048575

# rows: what is measured: WHAT|mapped or unmapped|PAGE_SIZE|PAGES|MEMBERS|read or write|BYTES|COUNT.
rows() {
	cat <<-END
		pages of 8 sectors|mapped|8|100000|4|read|4096|50000
		pages of 24 sectors|mapped|24|100000|4|read|4096|50000
		pages of 2048 sectors|mapped|2048|100000|4|read|4096|50000
		pages of 30720 sectors|mapped|30720|100000|4|read|4096|50000
		2 members, $most pages|mapped|8|$most|2|read|4096|50000
		4 members, $most pages|mapped|8|$most|4|read|4096|50000
		16 members, $most pages|mapped|8|$most|16|read|4096|50000
		256 members, $most pages|mapped|8|$most|256|read|4096|50000
		4 members, 1000 pages|mapped|8|1000|4|read|4096|50000
		pages without an entry|unmapped|8|100000|4|read|4096|50000
		writes, pages of 8 sectors|mapped|8|100000|4|write|4096|50000
		writes, pages of 24 sectors|mapped|24|100000|4|write|4096|50000
		1 MiB, pages of 8 sectors|mapped|8|100000|4|read|1048576|390
		1 MiB, pages of 24 sectors|mapped|24|100000|4|read|1048576|600
		1 MiB, pages of 2048 sectors|mapped|2048|100000|4|read|1048576|5000
	END
}

# expect_counts ROUTE: all I/Os had an entry ("mapped"), or none had one.
expect_counts() {
	counted=$(counts vol)
	case $1 in
	mapped) expect "the I/Os without an entry" 0 "${counted#* }" ;;
	*) expect "the I/Os with an entry" 0 "${counted% *}" ;;
	esac
}

# measure TARGET: put into /tmp/TARGET what each of the rows costs, on devices that make_TARGET makes.
measure() {
	rows | while IFS='|' read -r what route page_size pages members direction size count; do
		cost=
		if [ "$1 $route" != "kernels unmapped" ]; then
			"make_$1" "$page_size" "$pages" "$members"
			if [ "$1 $route" = "ours mapped" ]; then
				turns "$pages" "$members" | swupload vol -
			fi
			cost=$(io_cost vol "$direction" "$size" "$count")
			if [ "$1" = ours ]; then
				expect_counts "$route"
			fi
			dmsetup remove vol
		fi
		echo "$what|$cost"
	done >"/tmp/$1"
}

# loading_holds ARGUMENT...: the bytes that the kernel holds for a table of 16 members that is loaded, the page
# table not counted.
loading_holds() {
	held dmsetup dmsetup load vol --table "0 8 $*"
	dmsetup clear vol
}

# messages FILE: a page table of 16 members by turns as arguments of the message set_region_mappings, 1024 regions
# a line, with which dmsetup takes the fewest instructions.
messages() {
	awk 'NR % 64 == 1 { printf "%s%x", (NR > 1 ? "\n" : ""), (NR - 1) * 16 }
		{ gsub(/ /, " :"); printf ":%s ", $0 }
		END { print "" }' "$1"
}

# send_messages FILE: one for each line.
send_messages() {
	while read -r mappings; do
		# shellcheck disable=SC2086 # words
		dmsetup message vol 0 set_region_mappings $mappings
	done <"$1"
}

# region_table: the bytes of the kernel's own target's table.
region_table() {
	awk '/dm_intree/ { for (field = 1; field <= NF; field++)
		if (sub(/^pages=/, "", $field)) sum += $field * 4096 } END { print sum + 0 }' /proc/vmallocinfo
}

# upload_among COUNT: what an upload of one page costs the kernel where there are so many switches, the least of
# several.
upload_among() {
	make_ours 8 1000 4
	for number in $(seq 2 "$1"); do
		make_switch "other$number" 8 8 /dev/nullb0
	done
	echo 1 >/tmp/page
	for _ in 1 2 3 4 5; do
		upload_cost /tmp/page
	done | cut -d ' ' -f 2 | sort -n | head -n 1
	dmsetup remove vol
	for number in $(seq 2 "$1"); do
		dmsetup remove "other$number"
	done
}

# latencies WHAT NAME: a table's row: of 50,000 reads of 4 KiB, what so many of a hundred cost at most, to within
# about 1 %.
latencies() {
	timed_ios "$2" read 4096 50000
	sed -n 's/^ *"[0-9.]*000" : \([0-9]*\),*$/\1/p' /tmp/fio.json | head -n 4 | paste -s -d ' ' |
		sed "s/ / | /g; s/.*/| $1 | & |/"
}

# during WHAT COMMAND...: rows of what reads cost while the command is run again and again.
during() {
	during_what=$1
	shift
	touch /tmp/go
	while [ -e /tmp/go ]; do
		"$@"
	done &
	latencies "dm-linear, $during_what" linear
	latencies "the switch, $during_what" vol
	rm /tmp/go
	wait $!
}

# millions NUMBERS: as cells.
millions() {
	echo "$1" | awk '{ for (n = 1; n <= NF; n++) printf " %.2f |", $n / 1e6 }'
}

modprobe dm-mod
endless_disks 256
settle
measure linear
make_linear 8 $most 4
dmsetup rename vol linear
turns $most 16 >/tmp/pages
messages /tmp/pages >/tmp/messages

insmod /lib/modules/intree.ko
measure kernels
make_kernels 8 $most 16
kernels_table=$(region_table)
kernels_messages=$(process_cost dmsetup ioctl send_messages /tmp/messages)
during "messages" send_messages /tmp/messages >/tmp/kernels-latencies
# shellcheck disable=SC2046 # words
list=$(switch_line 8 $(endless_list 16))
linear_held=$(loading_holds linear /dev/nullb0 0)
kernels_held=$(loading_holds switch "16 8 0 ${list#16 8 }")
dmsetup remove vol
rmmod dm_intree

load
measure ours
make_ours 8 $most 16
ours_table=$(held swupload swupload vol /tmp/pages)
ours_table=$((ours_table - $(held swupload swupload vol /tmp/pages)))
during "nothing else" sleep 0.1 >/tmp/quiet-latencies
during "uploads" swupload vol /tmp/pages >/tmp/ours-latencies
ours_held=$(loading_holds switch "$list")
dmsetup remove vol
make_ours 8 $most 16
first_upload=$(upload_cost /tmp/pages)
second_upload=$(upload_cost /tmp/pages)
dmsetup remove vol
among_one=$(upload_among 1)
among_many=$(upload_among 1000)
dmsetup remove linear
unload
check_log

cat <<END
### Reads and writes

Instructions through dm-linear, and how many more it takes through a switch. Reads of 4 KiB, of pages of 8 sectors
over 4 members, unless the row says otherwise.

| | dm-linear | this module | the kernel's own |
|---|---:|---:|---:|
END
paste -d '|' /tmp/linear /tmp/ours /tmp/kernels | awk -F '|' '{
	printf "| %s | %d | %+d | %s |\n", $1, $2, $4 - $2, $6 == "" ? "" : sprintf("%+d", $6 - $2)
}'
cat <<END

### Changing $most entries of 4 bits

Millions of instructions, of all processes from their start to their end, and of these the kernel's in the system
calls that bring the entries.

| | all | the kernel's |
|---|---:|---:|
| swupload, a new table |$(millions "$first_upload")
| swupload, the same again |$(millions "$second_upload")
| the kernel's own: messages of 1024 regions, by dmsetup |$(millions "$kernels_messages")

An upload of one entry costs the kernel $among_one instructions where there is one switch, and $among_many where there
are 1000.

### Memory

| | this module | the kernel's own |
|---|---:|---:|
| bytes of a device with 16 members, more than dm-linear's with one | $((ours_held - linear_held)) | $((kernels_held - linear_held)) |
| bytes of the table of $most entries of 4 bits | $ours_table | $kernels_table |
| bits an entry |$(for bytes in $ours_table $kernels_table; do
	awk -v bytes="$bytes" -v most=$most 'BEGIN { printf " %.3f |", bytes * 8 / most }'
done)

### Reads while the table changes

Instructions of a read of 4 KiB, of which so many take no more, with what else ran on the one processor meanwhile.
Uploads, or messages, of $most entries follow each other without a pause.

| | 50 % | 90 % | 99 % | 99.9 % |
|---|---:|---:|---:|---:|
END
cat /tmp/quiet-latencies /tmp/ours-latencies /tmp/kernels-latencies
