# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# The commands of README.md and docs/guide.md, run as the documents have them.
#
#   blocks DOCUMENT DIRECTORY   write each block of a document to a file NUMBER.KIND of the directory
#   follow DOCUMENT             run a document's commands in the machine, and fail if one fails or prints anything else
#                               than the document says.  Commands after a reboot are run when the test is started again.
#                               It needs machine.sh
#
# All commands are in blocks between ``` lines.  The words after the first ``` say where they are run; KIND is these words
# with a - between them:
#
#   sh            on a machine with the packages, by the tests "readme" and "guide"
#   sh install    there before, and
#   sh purge      there afterwards, by scripts/check-package.sh
#   sh checkout   in a checkout on any Debian: make's targets, of which tests/host/documents checks only that they exist
#
# A block "text" after commands is what they print.  Other blocks are not commands.

blocks() {
	awk -v directory="$2" '
		/^```/ && file {
			close(file)
			file = ""
			next
		}
		/^```/ {
			kind = substr($0, 4)
			sub(/ /, "-", kind)
			file = sprintf("%s/%03d.%s", directory, ++number, kind)
			printf "" >file
			next
		}
		file { print >file }' "$1"
}

# steady: print standard input without what differs each time: numbers and names of devices, the spaces that align
# these, and the counts at the end of a status line, except 0 I/Os without an entry.
steady() {
	tr -s ' ' | sed -E 's/(^| )[0-9]+(:[0-9]+)+/\1N:N/g; s/\<sd[a-z]+\>/sdX/g; s/\<dm-[0-9]+\>/dm-N/g
		s/( [0-9a-f]{8} [0-9a-f]{8}) [0-9]+ ([0-9]+)$/\1 N \2/; s/( N) [1-9][0-9]*$/\1 N/'
}

# shown BLOCK: print the file with the output of a block's commands, if the document has it.
shown() {
	shown_next=$(printf '%s/%03d.text' "$(dirname "$1")" $(($(basename "$1" .sh | sed 's/^0*//') + 1)))
	if [ -e "$shown_next" ]; then
		echo "$shown_next"
	fi
}

follow() {
	follow_parts=/t/$(basename "$1" .md)
	if [ ! -e "$follow_parts" ]; then
		mkdir "$follow_parts"
		blocks "$1" "$follow_parts"
	fi
	for block in "$follow_parts"/*.sh; do
		[ ! -e "$block.done" ] || continue
		touch "$block.done"
		if grep -qx "systemctl reboot" "$block"; then
			sync
			reboot_by bash -e "$block"
		fi
		echo "--- $(head -n 1 "$block")"
		bash -e "$block" >/tmp/output 2>&1 || fail "$1: these commands failed, and printed:
$(cat "$block" /tmp/output)"
		cat /tmp/output
		if [ -n "$(shown "$block")" ]; then
			expect "what these commands of $1 print:
$(cat "$block")" "$(steady <"$(shown "$block")")" "$(steady </tmp/output)"
		fi
	done
}
