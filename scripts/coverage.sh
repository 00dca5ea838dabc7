#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make coverage.
#
# coverage.sh: run the tests in guests, as TEST and EXCEPT in the environment choose, with a module that counts how
# often each part of it is reached, print how much that is, and write coverage/index.html, which shows each line.
#
# Of all tests, print what they do not reach and what of tests/coverage/unreached they do, and fail if there is any.
#
# rustc and clang make the counters, as for a program (-Cinstrument-coverage): they are of the source, whatever becomes of
# it when it is optimized.  tests/modules/coverage.c sums them up in each guest, and tests/coverage/fold.rs over all.

export COVERAGE=yes CRATE=kernel KDIR=
. "$(dirname "$0")/lib.sh"
cd "$top"

COVERAGE=$(mktemp -d "$cache/coverage.XXXXXX")
trap 'rm -rf "$COVERAGE"' EXIT
list=(tests/coverage/unreached)
if [ -n "${TEST:-}${EXCEPT:-}" ]; then
	list=()
fi

draw() {
	rm -rf coverage
	# A line of which a part is not reached is no mistake of the input.
	root=$drawing_root in_root genhtml -q --flat --title dm-switch --branch-coverage --no-function-coverage \
		--rc check_data_consistency=0 -o coverage "$COVERAGE/coverage.info"
}

failed=0
scripts/check.sh || failed=1
scripts/tools.sh fold
in_root "$fold/fold" "$COVERAGE" . "${list[@]}" || failed=1
need_drawing_root
step "drawing coverage/index.html" draw
[ "$failed" -eq 0 ]
