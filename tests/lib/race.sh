# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Races: what is done again and again in the background, for as many seconds as race= on the kernel's command
# line says, while fio reads and looks at each sector: whether what is in it is whole, and is this sector's.

# known_sectors DISKS FIRST LENGTH SKIP SECTORS: on each of these disks, from sector FIRST on, up to SECTORS behind
# it, write what fio knows a sector by into LENGTH sectors, leave SKIP as they are, and so on.
known_sectors() {
	known_jobs=''
	for disk in $1; do
		known_jobs="$known_jobs --name=disk$disk --filename=/dev/ram$disk"
		known_jobs="$known_jobs --offset=$(($2 * 512)) --bs=$(($3 * 512)) --rw=write:$(($4 * 512))"
		known_jobs="$known_jobs --size=$(($5 * 512)) --io_size=$(($5 * 512 * $3 / ($3 + $4)))"
		known_jobs="$known_jobs --direct=1 --verify=crc32c --verify_interval=512 --do_verify=0"
	done
	# shellcheck disable=SC2086 # words
	fio $known_jobs >/tmp/fio || fail "$(cat /tmp/fio)"
}

# again COMMAND...: run a command in the background, once and then until the race is over.  The first that fails
# ends it for all.
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

# go_on_until COMMAND...: wait for a command to succeed, while all goes on.
go_on_until() {
	until [ -e /tmp/over ] || "$@" 2>/dev/null; do
		sleep 0.1
	done
}

# stop: what goes on in the background.
stop() {
	touch /tmp/over
	for job in $again_jobs; do
		wait "$job" || fail "what goes on in the background failed"
	done
	again_jobs=''
}

# finish: the same, and say how often each was done.
finish() {
	stop
	sort /tmp/rounds | uniq -c
	rm /tmp/rounds
}

# race WHAT ARGUMENT...: read with fio, which gets the arguments, for as long as a race takes, and say how many
# sectors were read.
race() {
	race_name=$1
	shift
	fio --output-format=terse --terse-version=3 --name=reads --rw=randread --norandommap --direct=1 \
		--ioengine=libaio --iodepth=4 --numjobs=2 --group_reporting --bssplit=512/30:4k/40:64k/30 \
		--verify=crc32c --verify_interval=512 --verify_header_seed=0 --verify_write_sequence=0 --verify_fatal=1 \
		--time_based "--runtime=$(parameter race)" "$@" >/tmp/fio 2>&1 || fail "$race_name: $(cat /tmp/fio)"
	awk -F ';' -v name="$race_name" '$3 == "reads" { print name ": " 2 * $6 " sectors read and verified" }' /tmp/fio
}

# another_device: one that comes, is used, and goes.
another_device() {
	make_switch another 64 8 /dev/ram0 /dev/ram1
	swupload another - <<-END
		1*8
	END
	counted another "1 0" read_sectors /dev/mapper/another 0 64
	dmsetup remove another
}

# uploads ARGUMENT...: run swupload, and count the messages that were accepted.
uploads() {
	swupload -v "$@" 2>>/tmp/accepted
}

# accepted_uploads: how many they were.
accepted_uploads() {
	echo "$(grep -c ' entries, ' /tmp/accepted) uploads accepted"
}
