# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Replaying recorded conversations.  tests/vectors/README.md explains their lines.
#
#   replay FILE   replay a recording, and fail at the first difference; the module must be loaded, and the disks exist

replay() {
	replay_line=0 reads_wanted=
	while read -r verb rest; do
		replay_line=$((replay_line + 1))
		at="$1:$replay_line: $verb"
		if [ "$verb" != read ] && [ -n "$reads_wanted" ]; then
			expect "the reads before $at" "$reads_wanted" " $(joined_names </tmp/sectors)"
			rm /tmp/sectors
			reads_wanted=
		fi
		case $verb in
		table)
			dmsetup create replayed --table "$rest"
			# shellcheck disable=SC2046 # two numbers
			number=$(u32 $(devno replayed))
			;;
		gettable) expect "$at" "$rest" "$(dmsetup table replayed)" ;;
		status) expect "$at" "$rest" "$(dmsetup status replayed)" ;;
		send | sendraw)
			sent=$rest
			if [ "$verb" = send ]; then
				sent=$(echo "$sent" | sed "s/^\(.\{32\}\).\{16\}/\1$number/")
			fi
			answer=$(send "$sent")
			;;
		recv)
			# If a message was too short for the userland words, the original took them from
			# the memory after it, where an older message had been.
			if [ "${#sent}" -lt 32 ]; then
				rest=$(echo "$rest" | sed 's/^\([^ ]*\) [^ ]* [^ ]*/\1 00000000 00000000/')
			fi
			case $rest in
			"0 "*) rest="$rest " ;;
			esac
			expect "$at" "$rest" "$answer"
			;;
		read)
			sector=${rest%% *} rest=${rest#* }
			sectors /dev/mapper/replayed "$sector" "${rest%% *}" >>/tmp/sectors
			reads_wanted="$reads_wanted ${rest#* }"
			;;
		remove) dmsetup remove replayed ;;
		*) fail "$at: no such step" ;;
		esac
	done <"$1"
	echo "$1: $replay_line steps"
}
