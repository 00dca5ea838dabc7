# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# The benchmark of two processors, in a guest that has as many: prints it as a table of BENCHMARKS.md.

. /t/lib/test.sh
. /t/lib/measure.sh

reads=50000

# reader PROCESSOR: read from vol, and print how many seconds that took.
reader() {
	taskset -c "$1" dd if=/dev/mapper/vol of=/dev/null iflag=direct bs=4k count=$reads 2>&1 |
		sed -n 's/.* copied, \([^ ]*\) s,.*/\1/p'
}

# round: the seconds of one reader, and of two at once.
round() {
	alone=$(reader 0)
	reader 1 >/tmp/other &
	together=$(reader 0)
	wait $!
	echo "$alone $(printf '%s\n' "$together" "$(cat /tmp/other)" | sort -n | tail -n 1)"
}

# ratio TARGET: how many times the reads of one processor two get done through a device that make_TARGET makes.
ratio() {
	"make_$1" 8 100000 4
	if [ "$1" = ours ]; then
		turns 100000 4 | swupload vol -
	fi
	for _ in $(seq 10); do
		round
	done | awk 'NR == 1 || $1 < one { one = $1 }
		NR == 1 || $2 < two { two = $2 }
		END { printf "%.3f\n", 2 * one / two }'
	dmsetup remove vol
}

# row WHAT TARGET: the ratios of dm-linear, of the target and of dm-linear again.
row() {
	echo "| $1 | $(ratio linear) | $(ratio "$2") | $(ratio linear) |"
}

modprobe dm-mod
endless_disks 4
settle
cat <<END

### Two processors

How many times the reads of one processor two get done from one device, each figure the best of ten rounds. This is
time, not instructions, in an emulator whose processors are threads.

| | dm-linear before | the switch | dm-linear after |
|---|---:|---:|---:|
END
insmod /lib/modules/intree.ko
row "the kernel's own" kernels
rmmod dm_intree
load
row "this module" ours
unload
check_log
