# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# The benchmark of two processors, in a guest that has as many: prints it as a table of BENCHMARKS.md.

. /t/lib/test.sh
. /t/lib/measure.sh

# reader NAME MASK: read from a mapped device on the processor of this mask, and print how many seconds that took.
# With its path, for busybox would have its own dd.
reader() {
	taskset "$2" /usr/bin/dd "if=/dev/mapper/$1" of=/dev/null iflag=direct bs=4k count=20000 2>&1 |
		sed -n 's/.* copied, \([^ ]*\) s,.*/\1/p'
}

# round NAME: the seconds of one reader, and of two at once.
round() {
	alone=$(reader "$1" 1)
	reader "$1" 1 >/tmp/one &
	reader "$1" 2 >/tmp/other
	wait $!
	echo "$alone $(sort -n /tmp/one /tmp/other | tail -n 1)"
}

# ratio NAME: how many times the reads of one processor two got done in the best of the rounds.
ratio() {
	awk 'NR == 1 || $1 < one { one = $1 }
		NR == 1 || $2 < two { two = $2 }
		END { printf "%.3f\n", 2 * one / two }' "/tmp/rounds-$1"
}

# row WHAT: the ratios of dm-linear and of the switch, in rounds by turns.
row() {
	rm -f /tmp/rounds-*
	for _ in $(seq 20); do
		for name in linear vol; do
			round $name >>/tmp/rounds-$name
		done
	done
	echo "| $1 | $(ratio linear) | $(ratio vol) |"
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
dmsetup remove linear
unload
check_log
