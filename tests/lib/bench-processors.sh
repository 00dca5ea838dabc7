# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the benchmarks of two processors, in a guest with two, and prints them as a chapter of docs/BENCHMARKS.md.

. /t/lib/test.sh
. /t/lib/measure.sh

# The pages of the largest table that an upload can make.
most=1048575

# reader NAME MASK: read from a mapped device on the processor of this mask, and print the seconds that this took.  The path
# of dd is given because busybox would run its own.
reader() {
	taskset "$2" /usr/bin/dd "if=/dev/mapper/$1" of=/dev/null iflag=direct bs=4k count=20000 2>&1 |
		sed -n 's/.* copied, \([^ ]*\) s,.*/\1/p'
}

# round NAME: print the seconds of one reader, and of two at once.
round() {
	alone=$(reader "$1" 1)
	reader "$1" 1 >/tmp/one &
	reader "$1" 2 >/tmp/other
	wait $!
	echo "$alone $(sort -n /tmp/one /tmp/other | tail -n 1)"
}

# ratio NAME FACTOR: print the least first time of the rounds over the least second time, times FACTOR.
ratio() {
	awk -v factor="$2" 'NR == 1 || $1 < one { one = $1 }
		NR == 1 || $2 < two { two = $2 }
		END { printf "%.3f\n", factor * one / two }' "/tmp/rounds-$1"
}

# hundredths: print the uptime in hundredths of a second.
hundredths() {
	cut -d ' ' -f 1 /proc/uptime | tr -d .
}

# uploads BITS...: upload /tmp/pages to vol in entries of each of these widths, and print the hundredths of a second that
# this took.
uploads() {
	uploads_begin=$(hundredths)
	for bits; do
		swupload -w 33000 -b "$bits" vol /tmp/pages
	done
	echo $(($(hundredths) - uploads_begin))
}

# uploads_round: print the time of uploads that each change the width, and so the shape of the table, and that of uploads
# that do not.  The table has entries of 4 bits before and after.
uploads_round() {
	new=$(uploads 8 4 8 4 8 4 8 4)
	same=$(uploads 4 4 4 4)
	swupload -b 8 vol /tmp/pages
	same=$((same + $(uploads 8 8 8 8)))
	swupload -b 4 vol /tmp/pages
	echo "$new $same"
}

# row WHAT: print the ratios of dm-linear and of the switch, whose rounds take turns.
row() {
	rm -f /tmp/rounds-*
	for _ in $(seq 20); do
		for name in linear vol; do
			round $name >>/tmp/rounds-$name
		done
	done
	echo "| $1 | $(ratio linear 2) | $(ratio vol 2) |"
	dmsetup remove vol
}

modprobe dm-mod
endless_disks 4
make_linear 8 100000
dmsetup rename vol linear
cat <<END

### Two processors

How many times the reads of one processor two get done from one device, each figure the best of 20 rounds. This is
time, not instructions, in an emulator whose processors are threads; dm-linear and the switch take turns.

| | dm-linear | the switch |
|---|---:|---:|
END
insmod /lib/modules/intree.ko
make_kernels 8 100000 4
row "the kernel's own"
rmmod dm_intree
load
make_ours 8 100000 4
turns 100000 4 | swupload vol -
row "this module"
make_ours 8 $most 4
turns $most 4 >/tmp/pages
swupload -b 4 vol /tmp/pages
for _ in $(seq 10); do
	uploads_round >>/tmp/rounds-uploads
done
cat <<END

An upload of $most entries in messages of 33,000 bytes takes $(ratio uploads 1) times as long if it changes the bits
of an entry, and so starts with an empty table, as it does in place; each is the best of 10 rounds.
END
dmsetup remove vol
dmsetup remove linear
unload
check_log
