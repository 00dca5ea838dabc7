# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Running swupload.
#
#   ends STATUS OUTPUT ERROR [ARGUMENT...]   run swupload; fail if its exit status, standard output or standard error is
#                                            another
#   complains ERROR [ARGUMENT...]            the same for a command line that swupload refuses with ERROR

ends() {
	ends_status=$1 ends_output=$2 ends_error=$3
	shift 3
	tool_status=0
	swupload "$@" >/tmp/output 2>/tmp/stderr || tool_status=$?
	expect "swupload $*: standard error" "$ends_error" "$(cat /tmp/stderr)"
	expect "swupload $*: standard output" "$ends_output" "$(cat /tmp/output)"
	expect "swupload $*: exit status" "$ends_status" "$tool_status"
}

complains() {
	complaint=$1
	shift
	ends 2 "" "swupload: $complaint
swupload: (swupload -h lists the options)" "$@"
}
