# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# What the demos share, in the guest.

# title TEXT
title() {
	printf '\n== %s\n\n' "$1"
}

# show COMMAND: print a command, and run it.
show() {
	printf '$ %s\n' "$1"
	eval "$1" 2>&1 || printf '(exit status %d)\n' $?
}
