# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the benchmarks that count instructions, in the guest, and prints them as tables of docs/BENCHMARKS.md.

. /t/lib/test.sh
. /t/lib/measure.sh
. /t/lib/nullb.sh

# The pages of the largest table that an upload can make.
most=1048575

# rows: print the rows to measure: WHAT|OWNERS (see own)|PAGE_SIZE|PAGES|MEMBERS|read or write|BYTES|COUNT|FIRST sector.
rows() {
	cat <<-END
		pages of 8 sectors|turns|8|100000|4|read|4096|50000|0
		pages of 24 sectors|turns|24|100000|4|read|4096|50000|0
		pages of 2048 sectors|turns|2048|100000|4|read|4096|50000|0
		pages of 30720 sectors|turns|30720|100000|4|read|4096|50000|0
		2 members, $most pages|turns|8|$most|2|read|4096|50000|0
		4 members, $most pages|turns|8|$most|4|read|4096|50000|0
		16 members, $most pages|turns|8|$most|16|read|4096|50000|0
		256 members, $most pages|turns|8|$most|256|read|4096|50000|0
		4 members, 1000 pages|turns|8|1000|4|read|4096|50000|0
		pages without an entry|none|8|100000|4|read|4096|50000|0
		writes, pages of 8 sectors|turns|8|100000|4|write|4096|50000|0
		writes, pages of 24 sectors|turns|24|100000|4|write|4096|50000|0
		1 MiB, pages of 8 sectors|turns|8|100000|4|read|1048576|390|0
		1 MiB, pages of 24 sectors|turns|24|100000|4|read|1048576|390|0
		1 MiB, pages of 24 sectors, one owner|one|24|100000|4|read|1048576|390|0
		1 MiB, pages of 2048 sectors|turns|2048|100000|4|read|1048576|390|0
		1 MiB, pages of 2048 sectors, one owner, not aligned|one|2048|100000|4|read|1048576|390|13
	END
}

# own TARGET OWNERS PAGES MEMBERS: make the members of vol the owners of its pages in turn ("turns"), the first one of all
# ("one"), or no member ("none").  The kernel's own target stays as it is for "one": it cuts I/O at each region, whoever
# the owners are.
own() {
	case "$1 $2" in
	"ours turns") turns "$3" "$4" | swupload vol - ;;
	"ours one") echo "0*$3" | swupload vol - ;;
	"kernels turns")
		# shellcheck disable=SC2046 # words
		dmsetup message vol 0 set_region_mappings 0:0 $(seq "$(($4 - 1))" | awk '{ printf ":%x ", $1 }') \
			"$(printf 'R%x,%x' "$4" $(($3 - $4)))"
		;;
	esac
}

# expect_counts OWNERS: fail if an I/O had no entry, or with the owners "none", if one had an entry.
expect_counts() {
	counted=$(counts vol)
	case $1 in
	none) expect "the I/Os with an entry" 0 "${counted% *}" ;;
	*) expect "the I/Os without an entry" 0 "${counted#* }" ;;
	esac
}

# measure TARGET: write the cost of each row to /tmp/TARGET, on devices that make_TARGET makes.
measure() {
	rows | while IFS='|' read -r what owners page_size pages members direction size count first; do
		cost=
		if [ "$1 $owners" != "kernels none" ]; then
			"make_$1" "$page_size" "$pages" "$members"
			own "$1" "$owners" "$pages" "$members"
			cost=$(io_cost vol "$direction" "$size" "$count" "$first")
			if [ "$1" = ours ]; then
				expect_counts "$owners"
			fi
			dmsetup remove vol
		fi
		echo "$what|$cost"
	done >"/tmp/$1"
	arrivals "$1" >"/tmp/$1-arrivals"
}

# arrived FIELD: print a field of the first disk's statistics: 1 reads, 12 discards.
arrived() {
	awk -v field="$1" '{ print $field }' "/sys/block/${disks#/dev/}0/stat"
}

# arrival WHAT TARGET PAGE_SIZE PAGES FIELD COMMAND...: print a row: how many I/Os of a command on vol reach the disk.
arrival() {
	arrival_what=$1 arrival_field=$5
	"make_$2" "$3" "$4" 1
	own "$2" one "$4" 1
	shift 5
	arrival_before=$(arrived "$arrival_field")
	"$@"
	echo "$arrival_what|$(($(arrived "$arrival_field") - arrival_before))"
	dmsetup remove vol
}

# arrivals TARGET: print how many I/Os reach a member from one I/O whose pages it owns, on devices that make_TARGET makes.
arrivals() {
	disks=/dev/counting
	null_disk "${disks#/dev/}0" queue_mode=2 blocksize=512 discard=1 size=64
	echo 2 >"/sys/block/${disks#/dev/}0/queue/nomerges"
	arrival "a read of 1 MiB, pages of 24 sectors" "$1" 24 5461 1 timed_ios vol read 1048576 1
	arrival "a discard of 64 MiB, pages of 8 sectors" "$1" 8 16384 12 blkdiscard /dev/mapper/vol
	disks=/dev/nullb
	remove_null_disks
}

# loading_holds ARGUMENT...: print the bytes that the kernel holds for a loaded table of 16 members, without the page table.
loading_holds() {
	held dmsetup dmsetup load vol --table "0 8 $*"
	dmsetup clear vol
}

# messages FILE: print a page table of 16 members in turn as arguments of the message set_region_mappings, 1024 regions a
# line: with this number dmsetup needs the fewest instructions.
messages() {
	awk 'NR % 64 == 1 { printf "%s%x", (NR > 1 ? "\n" : ""), (NR - 1) * 16 }
		{ gsub(/ /, " :"); printf ":%s ", $0 }
		END { print "" }' "$1"
}

# send_messages FILE: send a message for each line.
send_messages() {
	while read -r mappings; do
		# shellcheck disable=SC2086 # words
		dmsetup message vol 0 set_region_mappings $mappings
	done <"$1"
}

# region_table: print the bytes of the table of the kernel's own target.
region_table() {
	awk '/dm_intree/ { for (field = 1; field <= NF; field++)
		if (sub(/^pages=/, "", $field)) sum += $field * 4096 } END { print sum + 0 }' /proc/vmallocinfo
}

# upload_among COUNT: print the least cost of several uploads of one page for the kernel, with COUNT switches.
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

# latencies WHAT NAME: print a row: percentiles of the cost of 50,000 reads of 4 KiB, to within about 1 %.
latencies() {
	timed_ios "$2" read 4096 50000
	sed -n 's/^ *"[0-9.]*000" : \([0-9]*\),*$/\1/p' /tmp/fio.json | head -n 4 | paste -s -d ' ' |
		sed "s/ / | /g; s/.*/| $1 | & |/"
}

# during WHAT COMMAND...: print rows of the cost of reads while a command runs again and again.
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

# millions NUMBERS: print the numbers in millions, as cells.
millions() {
	echo "$1" | awk '{ for (n = 1; n <= NF; n++) printf " %.2f |", $n / 1e6 }'
}

# upload_row WHAT: print a row: the cost of an upload of /tmp/pages.
upload_row() {
	echo "| swupload, $1 |$(millions "$(upload_cost /tmp/pages)")"
}

# shaped_uploads: print rows of uploads of the file in each form of shapes.
shaped_uploads() {
	cp /tmp/pages /tmp/digits
	shapes >/tmp/shapes
	while IFS='|' read -r shape script; do
		awk "$script" /tmp/digits >/tmp/pages
		upload_row "the same again, $shape"
	done </tmp/shapes
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
list=$(switch_line 8 $(disk_list 16))
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
shaped_uploads >/tmp/shaped-uploads
dmsetup remove vol
make_ours 8 $most 256
two_digits $most >/tmp/pages
upload_row "a new table of 256 members, 8 bits an entry, in two digits" >>/tmp/shaped-uploads
dmsetup remove vol
among_one=$(upload_among 1)
among_many=$(upload_among 1000)
dmsetup remove linear
unload
check_log

cat <<END
### Reads and writes

Instructions of an I/O through dm-linear, and the difference of the two switches from that. Reads of 4 KiB, of pages
of 8 sectors over 4 members, unless the row says otherwise. The owner changes with each page, unless the row says that
all pages have one.

| | dm-linear | this module | the kernel's own |
|---|---:|---:|---:|
END
paste -d '|' /tmp/linear /tmp/ours /tmp/kernels | awk -F '|' '{
	printf "| %s | %d | %+d | %s |\n", $1, $2, $4 - $2, $6 == "" ? "" : sprintf("%+d", $6 - $2)
}'
cat <<END

### What reaches the disk

The number of I/Os that reach the one member of a switch, for one I/O.

| | dm-linear | this module | the kernel's own |
|---|---:|---:|---:|
END
paste -d '|' /tmp/linear-arrivals /tmp/ours-arrivals /tmp/kernels-arrivals |
	awk -F '|' '{ printf "| %s | %d | %d | %d |\n", $1, $2, $4, $6 }'
cat <<END

### Changing $most entries of 4 bits

Millions of instructions: of the processes, from start to end, and the kernel's part of that in the system calls that
pass the entries. The file has single digits, unless the row says otherwise.

| | all | the kernel's |
|---|---:|---:|
| swupload, a new table |$(millions "$first_upload")
| swupload, the same again |$(millions "$second_upload")
$(cat /tmp/shaped-uploads)
| the kernel's own: messages of 1024 regions, by dmsetup |$(millions "$kernels_messages")

An upload of one entry costs the kernel $among_one instructions if there is one switch, and $among_many if there are
1000.

### Memory

| | this module | the kernel's own |
|---|---:|---:|
| bytes of a device with 16 members, more than dm-linear's with one | $((ours_held - linear_held)) | $((kernels_held - linear_held)) |
| bytes of the table of $most entries of 4 bits | $ours_table | $kernels_table |
| bits an entry |$(for bytes in $ours_table $kernels_table; do
	awk -v bytes="$bytes" -v most=$most 'BEGIN { printf " %.3f |", bytes * 8 / most }'
done)

### Reads while the table changes

Percentiles of the instructions of a read of 4 KiB, including what else ran on the one processor in the meantime.
Uploads, or messages, of $most entries follow each other without a pause.

| | 50 % | 90 % | 99 % | 99.9 % |
|---|---:|---:|---:|---:|
END
cat /tmp/quiet-latencies /tmp/ours-latencies /tmp/kernels-latencies
