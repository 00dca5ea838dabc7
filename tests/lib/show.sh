# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Printing what the demos do.
#
#   title TEXT             print a heading
#   show COMMAND           print a command, and run it; if it fails, end the demo
#   show_refused COMMAND   print a command that fails, run it, and print its exit status; if it succeeds, end the demo

title() {
	printf '\n== %s\n\n' "$1"
}

show() {
	printf '$ %s\n' "$1"
	eval "$1" 2>&1 || stopped "failed, with the exit status $?"
}

show_refused() {
	printf '$ %s\n' "$1"
	! eval "$1" 2>&1 || stopped "succeeded, and should fail"
	printf '(refused)\n'
}

# stopped WHY
stopped() {
	printf 'The command %s\n' "$1"
	exit 1
}
