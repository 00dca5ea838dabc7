# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Whole netlink messages to the family DM_SWITCH, in hex, for tests that send what swupload does not.
#
#   zeros BYTES                    print this many zero bytes
#   attribute TYPE PAYLOAD         print an attribute, padded with zeros
#   request FLAGS SEQUENCE GENETLINK [PAYLOAD]
#                                  print a netlink message; GENETLINK is its generic netlink header, four bytes
#   upload MESSAGE                 print the request that userland of 2011 makes of an upload; its sequence number is 7
#   addressed MAJOR MINOR MESSAGE  print an upload with other device numbers
#   socket                         print the address of a generic netlink socket, for socat; options may follow it
#   exchange REQUEST               send one datagram, and print what is received
#   print_answers                  print what was received into /tmp/answers: "error NUMBER SEQUENCE" for an error or
#                                  acknowledgement, any other netlink message in hex
#   answered STATUS TEXT MESSAGE [SEQUENCE]
#                                  print the answer to an upload, as exchange prints it
#   verdicts NAME                  send uploads to a switch, and fail if one is not answered as expected

zeros() {
	if [ "$1" -gt 0 ]; then
		printf '%0*d' $((2 * $1)) 0
	fi
}

attribute() {
	u16 $((4 + ${#2} / 2)) "$1"
	printf '%s' "$2"
	zeros $((3 - (${#2} / 2 + 3) % 4))
}

request() {
	request_payload=${4:-}
	u32 $((20 + ${#request_payload} / 2))
	u16 "$(cat /sys/module/dm_switch/familyid)" "$1"
	u32 "$2" 0
	printf '%s%s' "$3" "$request_payload"
}

upload() {
	request 1 7 01010000 "$(attribute 1 "$1")"
}

socket() {
	echo SOCKET-DATAGRAM:16:3:16:x00000000000000000000
}

exchange() {
	printf '%s' "$1" | xxd -r -p >/tmp/request
	socat -b 131072 -t 0.05 - "$(socket)" </tmp/request >/tmp/answers
	print_answers
}

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

# answer_word OFFSET: print the word at this offset of the answer that is being printed.
answer_word() {
	od -A n -t d4 -j $((answer_at + $1)) -N 4 /tmp/answers | tr -d ' '
}

# answer SEQUENCE FIELDS STATUS TEXT: print an answer; FIELDS are the userland words and device numbers of its request.
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

# fields MESSAGE: print those fields of an upload that its answer repeats.
fields() {
	printf '%s' "$1" | cut -c 17-48
}

answered() {
	answer "${4:-7}" "$(fields "$3")" "$1" "$2"
}

addressed() {
	printf '%s' "$3" | sed "s/^\(.\{32\}\).\{16\}/\1$(u32 "$1" "$2")/"
}

# Each line of standard input is TOTAL OFFSET COUNT DEVICES BITS BYTES VERDICT: an upload with BYTES of entries, all zeros,
# and "accepted", or the text with which it is refused.  There "P:" is short for "Invalid Page Table message:", with which
# most texts begin.
verdicts() {
	while read -r total offset count devices bits bytes verdict; do
		verdict_message=$(message "$1" "$total" "$offset" "$count" "$devices" "$bits")$(zeros "$bytes")
		case $verdict in
		accepted) verdict="" number=0 ;;
		P:*) verdict="Invalid Page Table message${verdict#P}" number=22 ;;
		*) number=22 ;;
		esac
		expect "the answer to $total $offset $count $devices $bits $bytes" \
			"$number 11111111 22222222 $verdict" "$(send "$verdict_message")"
	done
}
