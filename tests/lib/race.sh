# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Races: commands that run again and again in the background, for the race= seconds of the kernel's command line, while
# fio reads and verifies sectors: that each is whole, and is the sector that was asked for.  A test that sources this file
# sources switch.sh before it.
#
#   known_sectors DISKS FIRST LENGTH SKIP SECTORS
#                                  write what fio verifies to sectors of these RAM disks: from FIRST to FIRST + SECTORS,
#                                  LENGTH sectors each time, and leave SKIP sectors after them as they are
#   again COMMAND...               run a command again and again, at least once; if it fails, go_on_until ends, and stop
#                                  fails
#   go_on_until COMMAND...         wait until a command succeeds, or the race has ended
#   race WHAT ARGUMENT...          read and verify with fio, which gets the arguments, for the time of a race
#   stop                           stop all that runs in the background; fail if any of it has failed
#   finish                         the same, and print how often each command ran
#   another_device                 make a switch, upload to it, read it, and remove it
#   uploads ARGUMENT...            run swupload, and note the messages that are accepted
#   accepted_uploads               print how many these were

known_sectors() {
	known_jobs=''
	for disk in $1; do
		known_jobs="$known_jobs --name=disk$disk --filename=/dev/ram$disk"
		known_jobs="$known_jobs --offset=$(($2 * 512)) --bs=$(($3 * 512)) --rw=write:$(($4 * 512))"
		known_jobs="$known_jobs --size=$(($5 * 512)) --io_size=$(($5 * 512 * $3 / ($3 + $4)))"
		known_jobs="$known_jobs --direct=1 --verify=crc32c --verify_interval=512 --do_verify=0"
	done
	# shellcheck disable=SC2086 # words
	fio $known_jobs >/tmp/fio || fail "the known sectors: fio failed: $(cat /tmp/fio)"
}

again() {
	rm -f /tmp/over
	(
		trap 'touch /tmp/over' EXIT
		"$@"
		echo "$*" >>/tmp/rounds
		while [ ! -e /tmp/over ]; do
			"$@"
			echo "$*" >>/tmp/rounds
		done
	) &
	again_jobs="${again_jobs:-} $!"
}

go_on_until() {
	until [ -e /tmp/over ] || "$@" 2>/dev/null; do
		sleep 0.1
	done
}

stop() {
	touch /tmp/over
	for job in $again_jobs; do
		wait "$job" || fail "a command in the background failed"
	done
	again_jobs=''
}

finish() {
	stop
	sort /tmp/rounds | uniq -c
	rm /tmp/rounds
}

race() {
	race_name=$1
	shift
	fio --output-format=terse --terse-version=3 --name=reads --rw=randread --norandommap --direct=1 \
		--ioengine=libaio --iodepth=4 --numjobs=2 --group_reporting --bssplit=512/30:4k/40:64k/30 \
		--verify=crc32c --verify_interval=512 --verify_header_seed=0 --verify_write_sequence=0 --verify_fatal=1 \
		--time_based "--runtime=$(parameter race)" "$@" >/tmp/fio 2>&1 || fail "$race_name: fio failed: $(cat /tmp/fio)"
	awk -F ';' -v name="$race_name" '$3 == "reads" { print name ": " 2 * $6 " sectors read and verified" }' /tmp/fio
}

another_device() {
	make_switch another 64 8 /dev/ram0 /dev/ram1
	swupload another - <<-END
		1*8
	END
	counted another "1 0" read_sectors /dev/mapper/another 0 64
	dmsetup remove another
}

uploads() {
	swupload -v "$@" 2>>/tmp/accepted || fail "swupload $*: $(tail -n 3 /tmp/accepted)"
}

accepted_uploads() {
	echo "$(grep -c ' entries, ' /tmp/accepted) uploads accepted"
}
