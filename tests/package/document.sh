# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# The commands of README.md and docs/guide.md, run as they stand there.
#
# All commands are in blocks between ``` lines, and what stands behind the first ``` says where they run:
#
#   sh            on a machine with the packages, by the tests "readme" and "guide"
#   sh install    there before, and
#   sh purge      there afterwards, by scripts/check-package.sh
#   sh checkout   in a checkout on any Debian: make's targets, of which tests/host/documents only looks whether
#                 they are there
#
# A block "text" behind commands has what they print; others are no commands.

# blocks DOCUMENT DIRECTORY: put each block of a document into a file NUMBER.KIND, where KIND is what stands behind
# its ```, with a - for the space.
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

# steady: standard input without what is another way each time: numbers and names of devices, and how many spaces it
# takes to align these; the counts at the end of a status line, but for a 0 of I/Os without an entry.
steady() {
	tr -s ' ' | sed -E 's/(^| )[0-9]+(:[0-9]+)+/\1N:N/g; s/\<sd[a-z]+\>/sdX/g; s/\<dm-[0-9]+\>/dm-N/g
		s/( [0-9a-f]{8} [0-9a-f]{8}) [0-9]+ ([0-9]+)$/\1 N \2/; s/( N) [1-9][0-9]*$/\1 N/'
}

# shown FILE: the file with what the commands in FILE are to print, if the document says that.
shown() {
	shown_next=$(printf '%s/%03d.text' "$(dirname "$1")" $(($(basename "$1" .sh | sed 's/^0*//') + 1)))
	if [ -e "$shown_next" ]; then
		echo "$shown_next"
	fi
}

# follow DOCUMENT: run the commands of a document, from the first on that was not run yet: those behind a reboot are
# run when the test is started again.
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
			echo "dm-switch guest: reboot"
			sync
			bash -e "$block"
			sleep infinity
		fi
		echo "--- $(head -n 1 "$block")"
		bash -e "$block" >/tmp/output 2>&1 || fail "$1: these commands:
$(cat "$block" /tmp/output)"
		cat /tmp/output
		if [ -n "$(shown "$block")" ]; then
			expect "what these commands of $1 print:
$(cat "$block")" "$(steady <"$(shown "$block")")" "$(steady </tmp/output)"
		fi
	done
}
