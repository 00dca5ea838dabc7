# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Printing what the demos do.
#
#   title TEXT     print a heading
#   show COMMAND   print a command, run it, and print its exit status if it fails

title() {
	printf '\n== %s\n\n' "$1"
}

show() {
	printf '$ %s\n' "$1"
	eval "$1" 2>&1 || printf '(exit status %d)\n' $?
}
