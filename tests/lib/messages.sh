# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Uploads as a message in hex, which swupload -r sends: a struct IpcPgTable and its entries, for a mapped device.
#
#   u8, u16, u32 NUMBER...      print the numbers' bytes in hex, little-endian
#   devno NAME                  print a mapped device's major and minor number
#   major_minor NAME            print the two as MAJOR:MINOR
#   message NAME TOTAL OFFSET COUNT DEVICES BITS [WORD...]
#                               print a message with the userland words 0x11111111 and 0x22222222
#   send HEX                    send a message, and print its answer: status, userland words, text
#   accepted HEX                send a message; fail if it is not accepted
#   refused ERRNO TEXT HEX      send a message; fail if it is not refused with ERRNO and TEXT
#   userland NAME               print the userland words of a switch, those of the last upload that was accepted

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

devno() {
	dmsetup info -c --noheadings --separator ' ' -o major,minor "$1"
}

major_minor() {
	devno "$1" | tr ' ' :
}

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

# The answer has the form that it has in the recordings (tests/vectors).
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

accepted() {
	expect "the answer" "0 11111111 22222222 " "$(send "$1")"
}

refused() {
	expect "the answer" "$1 11111111 22222222 $2" "$(send "$3")"
}

userland() {
	dmsetup status "$1" | sed 's/.* A* \([0-9a-f]* [0-9a-f]*\) [0-9]* [0-9]*$/\1/'
}
