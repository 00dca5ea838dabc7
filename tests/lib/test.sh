# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# What the guest's tests share.  A test is sourced behind this, with set -eu: a command that fails
# fails it, and so does a kernel log with a complaint in it.

# fail TEXT: end the test.
fail() {
	echo "FAILED: $*"
	exit 1
}

# expect WHAT WANTED GOT
expect() {
	[ "$2" = "$3" ] || fail "$1:
  wanted: $2
  got:    $3"
}

# fails COMMAND...: run a command that is to fail; its standard error, without the part of a line
# that dmsetup puts before the kernel's error, goes to /tmp/stderr.
fails() {
	if "$@" 2>/tmp/stderr; then
		fail "succeeded: $*"
	fi
}

# rise BEFORE AFTER: by how much each of the numbers has risen.
rise() {
	echo "$1 $2" | awk '{
		for (n = 1; n <= NF / 2; n++)
			printf "%s%d", (n > 1 ? " " : ""), $(n + NF / 2) - $n
	}'
}

# parameter NAME: of the kernel's command line.
parameter() {
	sed -n "s/.* $1=\([^ ]*\).*/\1/p" /proc/cmdline
}

# until_true COMMAND...: wait for a command to succeed, 20 seconds at most.
until_true() {
	for _ in $(seq 200); do
		if "$@"; then
			return
		fi
		sleep 0.1
	done
	fail "not true in 20 seconds: $*"
}

# uptime: the guest's, in seconds.
uptime() {
	cut -d . -f 1 /proc/uptime
}

# load: the module.
load() {
	modprobe dm-mod
	insmod /t/dm-switch.ko
}

# blank_disks COUNT SECTORS: make /dev/ram0 and on.  They take memory only where they are written.
blank_disks() {
	modprobe brd "rd_nr=$1" "rd_size=$(($2 / 2))"
}

# name_sectors DISK FIRST COUNT: write into each of these sectors of /dev/ramDISK its name,
# DISK/SECTOR.  The names of 8 disks of 131072 sectors are there, one disk's behind the other's.
name_sectors() {
	dd if=/dev/vda "of=/dev/ram$1" bs=64k iflag=count_bytes,skip_bytes oflag=seek_bytes \
		skip=$((($1 * 131072 + $2) * 512)) seek=$(($2 * 512)) count=$(($3 * 512)) \
		conv=fsync 2>/dev/null
}

# named_disks COUNT SECTORS: make /dev/ram0 and on, with a name in each sector.
named_disks() {
	blank_disks "$1" "$2"
	for disk in $(seq 0 $(($1 - 1))); do
		name_sectors "$disk" 0 "$2"
	done
}

# sectors DEVICE SECTOR COUNT: sectors of a device, with one O_DIRECT read.
sectors() {
	dd "if=$1" bs=$(($3 * 512)) count=1 iflag=direct,skip_bytes skip=$(($2 * 512)) 2>/dev/null
}

# joined_names: the names in standard input's sectors.
joined_names() {
	tr -d ' ' | paste -s -d ' '
}

# names DEVICE SECTOR COUNT: read sectors with one O_DIRECT read, and print their names.
names() {
	sectors "$@" | joined_names
}

# u8, u16, u32 NUMBER...: the numbers' bytes in hex, little-endian.
u8() {
	printf '%02x' "$@"
}
u16() {
	for number; do
		u8 $((number & 255)) $((number >> 8 & 255))
	done
}
u32() {
	for number; do
		u16 $((number & 65535)) $((number >> 16 & 65535))
	done
}

# devno NAME: a mapped device's major and minor number.
devno() {
	dmsetup info -c --noheadings --separator ' ' -o major,minor "$1"
}

# message NAME TOTAL OFFSET COUNT DEVICES BITS [WORD...]: a struct IpcPgTable in hex, with the
# userland words 0x11111111 and 0x22222222.
message() {
	message_name=$1 message_total=$2 message_offset=$3 message_count=$4 message_devices=$5
	message_bits=$6
	shift 6
	# shellcheck disable=SC2046 # two numbers
	u32 $((40 + 4 * $#)) 1 0x11111111 0x22222222 $(devno "$message_name") \
		"$message_total" "$message_offset" "$message_count"
	u16 "$message_devices"
	u8 "$message_bits" 0
	if [ $# -gt 0 ]; then
		u32 "$@"
	fi
}

# send HEX: send a message, and print the answer as the recordings have it: status, the userland
# words, the text.
send() {
	printf '%s' "$1" >/tmp/message
	swupload -r /tmp/message 2>/tmp/stderr | while read -r field value; do
		case $field in
		userland) send_words="${value#0x}" ;;
		status) send_status=$value ;;
		err_str) printf '%s %s %s %s\n' "$send_status" "${send_words% *}" "${send_words#* 0x}" "$value" ;;
		esac
	done
}

# accepted HEX: send a message that is to be accepted.
accepted() {
	expect "the answer" "0 11111111 22222222 " "$(send "$1")"
}

# refused ERRNO TEXT HEX: send a message that is to be refused.
refused() {
	expect "the answer" "$1 11111111 22222222 $2" "$(send "$3")"
}

# userland NAME: the userland words of a switch's status line, those of the last upload that was
# accepted.
userland() {
	dmsetup status "$1" | sed 's/.* A* \([0-9a-f]* [0-9a-f]*\) [0-9]* [0-9]*$/\1/'
}

# logged TEXT: the kernel's log has a line of the module's with this text.
logged() {
	dmesg | grep -qF "dm_switch: $1" || fail "not in the kernel's log: $1
$(dmesg | grep dm_switch | tail -n 5)"
}

# unload: the module; with it goes all that a test left behind.
unload() {
	dmsetup remove_all
	rmmod dm_switch
}

# What complaints have in them: any kernel's, and those of a kernel that looks for faults, or gives up looking.
complaints='[^A-Z]BUG|\] (WARNING|INFO): |INFO: (task|rcu)|cut here|Call Trace|Oops|general prot|Kernel panic'
complaints="$complaints|refcount_t|leaked|detected stall|invoked oom-killer"
complaints="$complaints|KASAN|KCSAN|UBSAN|ODEBUG|suspected memory leak|(memory|list_[a-z]*) corruption|single bit error"
complaints="$complaints|turning off the locking|kmemleak: (Cannot|Memory pool|.* disabled)"

kmemleak=/sys/kernel/debug/kmemleak

# finds_leaks: whether the kernel looks for what nothing points to.
finds_leaks() {
	[ -e $kmemleak ]
}

# scan: have the kernel look for what nothing points to.
scan() {
	echo scan >$kmemleak || fail "$kmemleak: the kernel looks for leaks no more, its log says why"
}

# check_leaks: fail if something was lost, where the kernel looks for that.  It only names what is five seconds old,
# and has not changed since it looked last.
check_leaks() {
	if finds_leaks; then
		sleep 6
		scan
		scan
		expect "memory that was lost" "" "$(cat $kmemleak)"
	fi
}

# begin_log: the kernel's log begins here.
begin_log() {
	dmesg -c >/dev/null
	echo "dm-switch guest: log" >/dev/kmsg
}

# module_races: the kernel's log, less the data races that are not the module's: those in which the code of neither
# access is.  The kernel has some that it means to have.
module_races() {
	dmesg | awk '/BUG: KCSAN: / { race = $0; next }
		access && /\[dm_switch\]/ { print race }
		{ access = / by (task|interrupt)/; print }'
}

# check_log: fail if the kernel's log has a complaint in it, or may have lost one with its beginning.
check_log() {
	dmesg | grep -Eqm 1 '\] (Linux version |dm-switch guest: log)' || fail "the kernel's log has lost its beginning"
	if module_races | grep -E "$complaints" >/tmp/complaints; then
		fail "the kernel's log:
$(cat /tmp/complaints)"
	fi
}
