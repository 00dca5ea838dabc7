# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Whole netlink messages to the family DM_SWITCH, in hex, for the tests that have to say more than
# swupload does.

# zeros BYTES
zeros() {
	if [ "$1" -gt 0 ]; then
		printf '%0*d' $((2 * $1)) 0
	fi
}

# attribute TYPE PAYLOAD: an attribute, its padding zeros.
attribute() {
	u16 $((4 + ${#2} / 2)) "$1"
	printf '%s' "$2"
	zeros $((3 - (${#2} / 2 + 3) % 4))
}

# request FLAGS SEQUENCE GENETLINK [BEHIND]: a netlink message to the family, with the four bytes of
# its generic netlink header and what is behind that.
request() {
	request_behind=${4:-}
	u32 $((20 + ${#request_behind} / 2))
	u16 "$(cat /sys/module/dm_switch/familyid)" "$1"
	u32 "$2" 0
	printf '%s%s' "$3" "$request_behind"
}

# upload MESSAGE: the request that old userland makes of a struct IpcPgTable, number 7.
upload() {
	request 1 7 01010000 "$(attribute 1 "$1")"
}

# socket: one of generic netlink, for socat; options may follow.
socket() {
	echo SOCKET-DATAGRAM:16:3:16:x00000000000000000000
}

# exchange REQUEST: send one datagram, and print what comes back: "error NUMBER SEQUENCE" for an
# error or acknowledgement, and any other netlink message in hex.
exchange() {
	printf '%s' "$1" | xxd -r -p >/tmp/request
	socat -b 131072 -t 0.05 - "$(socket)" </tmp/request >/tmp/answers
	print_answers
}

# print_answers: those in /tmp/answers.
print_answers() {
	answer_at=0
	answers_end=$(stat -c %s /tmp/answers)
	while [ "$answer_at" -lt "$answers_end" ]; do
		answer_length=$(answer_word 0)
		if [ $(($(answer_word 4) & 65535)) = 2 ]; then
			echo "error $(answer_word 16) $(answer_word 8)"
		else
			xxd -p -s "$answer_at" -l "$answer_length" /tmp/answers | tr -d '\n'
			echo
		fi
		answer_at=$((answer_at + (answer_length + 3) / 4 * 4))
	done
}

answer_word() {
	od -A n -t d4 -j $((answer_at + $1)) -N 4 /tmp/answers | tr -d ' '
}

# answer SEQUENCE FIELDS STATUS TEXT: the bytes of an answer, with the request's userland words and
# device numbers in FIELDS.
answer() {
	u32 308
	u16 "$(cat /sys/module/dm_switch/familyid)" 0
	u32 "$1" 0
	u8 1 1 0 0
	u16 288 11
	u32 284 1
	printf '%s' "$2"
	u32 "$3"
	printf '%s' "$4" | xxd -p | tr -d '\n'
	zeros $((256 - ${#4}))
	echo
}

# fields MESSAGE: of a struct IpcPgTable, what comes back in the answer.
fields() {
	printf '%s' "$1" | cut -c 17-48
}

# answered STATUS TEXT MESSAGE [SEQUENCE]: the answer, as exchange prints it.
answered() {
	answer "${4:-7}" "$(fields "$3")" "$1" "$2"
}

# addressed MAJOR MINOR MESSAGE: a message with other device numbers.
addressed() {
	printf '%s' "$3" | sed "s/^\(.\{32\}\).\{16\}/\1$(u32 "$1" "$2")/"
}

# verdicts NAME: each line of standard input is TOTAL OFFSET COUNT DEVICES BITS BYTES VERDICT.  A
# message with that many bytes of entries, all zeros, is "accepted", or refused with VERDICT, in
# which "P:" stands for what most of the texts begin with.
verdicts() {
	while read -r total offset count devices bits bytes verdict; do
		verdict_message=$(message "$1" "$total" "$offset" "$count" "$devices" "$bits")$(zeros "$bytes")
		case $verdict in
		accepted) verdict="" number=0 ;;
		P:*) verdict="Invalid Page Table message${verdict#P}" number=22 ;;
		*) number=22 ;;
		esac
		expect "$total $offset $count $devices $bits $bytes" \
			"$number 11111111 22222222 $verdict" "$(send "$verdict_message")"
	done
}
