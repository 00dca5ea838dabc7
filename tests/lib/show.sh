# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Printing what the demos do.
#
#   title TEXT             print a heading
#   show COMMAND           print a command, and run it; if it fails, end the demo
#   show_refused COMMAND   print a command that fails, run it, and print its exit status; if it succeeds, end the demo

. /t/lib/checks.sh

title() {
	printf '\n== %s\n\n' "$1"
}

show() {
	printf '$ %s\n' "$1"
	eval "$1" 2>&1 || fail "exit status $?: $1"
}

show_refused() {
	printf '$ %s\n' "$1"
	! eval "$1" 2>&1 || fail "succeeded, and should fail: $1"
	printf '(refused)\n'
}
