# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Checks, for the tests of the guests and of the host.
#
#   fail TEXT                print TEXT on standard error, and end the test as failed
#   expect WHAT WANTED GOT   fail if GOT is not WANTED
#   same_lines WHAT          fail if the files /tmp/wanted and /tmp/got differ, and print how
#   fails COMMAND...         fail if the command succeeds; its standard error goes to /tmp/stderr

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

expect() {
	[ "$2" = "$3" ] || fail "$1:
  wanted: $2
  got:    $3"
}

same_lines() {
	cmp -s /tmp/wanted /tmp/got || fail "$1, wanted and got:
$(diff /tmp/wanted /tmp/got | cut -c 1-300 | sed -n 1,30p)"
}

fails() {
	if "$@" 2>/tmp/stderr; then
		fail "succeeded, and should fail: $*"
	fi
}
