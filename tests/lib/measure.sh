# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# The cost of I/O, uploads and devices, in a guest with "counted" processors: a nanosecond is an instruction.
#
#   endless_disks COUNT            make /dev/nullb0 and on, of 2 TiB, which answer at once and keep nothing
#   disk_list COUNT                print the paths of the first COUNT of these
#   settle                         wait until the kernel has done what is left of its start, which would be counted, too
#   timed_ios NAME read|write SIZE COUNT [FIRST]
#                                  do COUNT I/Os of SIZE bytes on a mapped device, from sector FIRST on, or from its begin
#                                  again when they reach its end; /tmp/fio.json has the time of each
#   io_cost NAME read|write SIZE COUNT [FIRST]
#                                  the same; print the instructions of the cheapest one
#   make_linear, make_kernels, make_ours PAGE_SIZE PAGES MEMBERS
#                                  make the mapped device vol of these disks: of dm-linear, of the kernel's own switch
#                                  target, of this module's
#   turns PAGES MEMBERS            print a page table in which the members take turns, one turn a line
#   shapes                         print forms of a page table's file, as FORM|SCRIPT: SCRIPT is the awk script that makes
#                                  a file of that form from one of 16 single digits a line
#   two_digits PAGES               print a page table of 256 members in turn, two digits each
#   process_cost PROGRAM CALL COMMAND...
#                                  run a command; print the instructions of all processes of PROGRAM, and of these the
#                                  kernel's in the system call CALL
#   upload_cost FILE               the same of an upload to vol, and its system call write
#   held PROGRAM COMMAND...        run a command; print the bytes that the kernel allocated for processes of PROGRAM and
#                                  did not free

. /t/lib/switch.sh

tracing=/sys/kernel/tracing

endless_disks() {
	modprobe null_blk queue_mode=0 irqmode=0 gb=2048 "nr_devices=$1"
}

# The begin of a disk's path, before its number.
disks=/dev/nullb

disk_list() {
	seq 0 $(($1 - 1)) | sed "s,^,$disks,"
}

settle() {
	sleep 20
}

# The buffer is a huge page.  With small pages, the number of an I/O's segments would depend on the pages that the process
# got.
timed_ios() {
	echo 2 >/proc/sys/vm/nr_hugepages
	fio --name=io "--filename=/dev/mapper/$1" "--rw=$2" "--bs=$3" "--number_ios=$4" "--io_size=$(($3 * $4))" \
		"--offset=$((${5:-0} * 512))" --mem=shmhuge --direct=1 --ioengine=psync --clocksource=clock_gettime \
		--percentile_list=50:90:99:99.9 --output-format=json --output=/tmp/fio.json
}

# The least excludes the clock's ticks, and everything else that comes between.
io_cost() {
	timed_ios "$@"
	sed -n '/"clat_ns"/,$s/^ *"min" : \([0-9]*\),$/\1/p' /tmp/fio.json | grep -vx 0 | head -n 1
}

make_linear() {
	dmsetup create vol --table "0 $(($1 * $2)) linear ${disks}0 0"
}
make_kernels() {
	# shellcheck disable=SC2046 # words
	dmsetup create vol --table "0 $(($1 * $2)) switch $3 $1 0$(printf ' %s 0' $(disk_list "$3"))"
}
make_ours() {
	# shellcheck disable=SC2046 # words
	make_switch vol $(($1 * $2)) "$1" $(disk_list "$3")
}

turns() {
	turn=$(seq 0 $(($2 - 1)) | awk '{ printf "%s%x", (NR > 1 ? " " : ""), $1 }')
	yes "$turn" | head -n $(($1 / $2))
	if [ $(($1 % $2)) -gt 0 ]; then
		echo "$turn" | cut -d ' ' -f "1-$(($1 % $2))"
	fi
}

shapes() {
	cat <<-'END'
		with comments|NR % 16 == 1 { print "# 16 pages a line" } 1
		some in runs|NR % 1000 == 1 { print "2*1000 2*1000" } NR % 1000 < 1 || NR % 1000 > 125
		some of two digits|{ sub(/ a b c d /, " 0a 0b 0c 0d ") } 1
		with CRLF|{ $0 = $0 "\r" } 1
	END
}

two_digits() {
	awk -v pages="$1" 'BEGIN { for (page = 0; page < pages; page++) printf "%02x\n", page % 256 }'
}

# traced EVENTS COMMAND...: run a command, and write these events of all processes to /tmp/trace.
traced() {
	traced_events=$1
	shift
	mount -t tracefs tracing $tracing
	echo 32768 >$tracing/buffer_size_kb
	echo x86-tsc >$tracing/trace_clock
	echo >$tracing/trace
	for event in $traced_events; do
		echo 1 >"$tracing/events/$event/enable"
	done
	"$@"
	echo 0 >$tracing/events/enable
	grep -v '^#' $tracing/trace >/tmp/trace
	umount $tracing
}

# A process counts from its execve to its exit.  The clock also runs while another process runs, or none, as during a grace
# period of RCU: that time does not count.
process_cost() {
	process_name=$1 process_call=$2
	shift 2
	traced "syscalls/sys_enter_execve syscalls/sys_enter_$process_call syscalls/sys_exit_$process_call \
sched/sched_process_exit sched/sched_switch" "$@"
	awk -v program="$process_name" -v call="sys_$process_call" '
		{ pid = $1; sub(/.*-/, "", pid); time = $4 - away[pid] }
		/sched_switch: / && match($0, / next_pid=[0-9]*/) {
			left[pid] = $4
			other = substr($0, RSTART + 10, RLENGTH - 10)
			if (other in left)
				away[other] += $4 - left[other]
		}
		index($1, program "-") != 1 { next }
		/sys_execve\(/ { begin = time }
		index($0, call "(") { entered = time }
		index($0, call " -> ") { called += time - entered }
		/sched_process_exit: / { total += time - begin }
		END { print total, called }' /tmp/trace
}

upload_cost() {
	process_cost swupload write swupload vol "$1"
}

held() {
	held_program=$1
	shift
	traced "kmem/kmalloc kmem/kmem_cache_alloc kmem/kfree kmem/kmem_cache_free percpu/percpu_alloc_percpu \
percpu/percpu_free_percpu" "$@"
	awk -v program="$held_program" '
		match($0, / ptr=[^ ]*/) { place = substr($0, RSTART + 5, RLENGTH - 5) }
		/free/ { delete bytes[place] }
		index($1, program "-") == 1 && match($0, / bytes_alloc=[0-9]*/) {
			bytes[place] = substr($0, RSTART + 13, RLENGTH - 13)
		}
		END { for (place in bytes) sum += bytes[place]; print sum + 0 }' /tmp/trace
}
