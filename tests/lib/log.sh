# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# The kernel's log: its complaints, and the lines that a test expects; and the kernel's search for lost memory.
#
#   begin_log       clear the log
#   check_log       fail if the log has a complaint since begin_log, or has lost its beginning
#   finds_leaks     succeed if the kernel searches for lost memory (kmemleak)
#   check_leaks     fail if memory was lost, where the kernel searches for it
#   logged TEXT     fail if no line of the module's has TEXT
#   mark            let log begin here
#   log             print the lines since mark, without their times
#   logdisk_requests
#                   print the requests that the disks of the module logdisk got since mark, in one line

# The words of complaints: of any kernel's, and of a kernel that looks for faults, or stops looking.
complaints='[^A-Z]BUG|\] (WARNING|INFO): |INFO: (task|rcu)|cut here|Call Trace|Oops|general prot|Kernel panic'
complaints="$complaints|refcount_t|leaked|detected stall|invoked oom-killer|dm_put_device call missing"
complaints="$complaints|KASAN|KCSAN|UBSAN|ODEBUG|suspected memory leak|(memory|list_[a-z]*) corruption|single bit error"
complaints="$complaints|turning off the locking|kmemleak: (Cannot|Memory pool|.* disabled)"

kmemleak=/sys/kernel/debug/kmemleak

begin_log() {
	dmesg -c >/dev/null
	echo "dm-switch guest: log" >/dev/kmsg
}

# module_races: print the log without the data races of others.  A race is the module's if the code of one of the two
# accesses is.  The kernel has races that it accepts.
module_races() {
	dmesg | awk '/BUG: KCSAN: / { race = $0; next }
		access && /\[dm_switch\]/ { print race }
		{ access = / by (task|interrupt)/; print }'
}

check_log() {
	dmesg | grep -Eqm 1 '\] (Linux version |dm-switch guest: log)' || fail "the kernel's log has lost its beginning"
	if module_races | grep -E "$complaints" >/tmp/complaints; then
		fail "the kernel's log:
$(cat /tmp/complaints)"
	fi
}

finds_leaks() {
	[ -e $kmemleak ]
}

# scan: make the kernel search.
scan() {
	echo scan >$kmemleak || fail "$kmemleak: the kernel has stopped searching for leaks, its log says why"
}

# The kernel reports only memory that is five seconds old and that did not change since its last search.
check_leaks() {
	if finds_leaks; then
		sleep 6
		scan
		scan
		expect "lost memory" "" "$(cat $kmemleak)"
	fi
}

logged() {
	dmesg | grep -qF "dm_switch: $1" || fail "not in the kernel's log: $1
$(dmesg | grep dm_switch | tail -n 5)"
}

mark() {
	log_mark=$((${log_mark:-0} + 1))
	echo "mark $log_mark." >/dev/kmsg
}

# A line about a processor that is slow is left out.
log() {
	dmesg | sed "1,/ mark $log_mark\\.\$/d; s/^\\[[^]]*\\] //; /^hrtimer: interrupt took /d"
}

logdisk_requests() {
	log | sed -n 's/^logdisk: //p' | paste -s -d ';'
}
