#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check.sh: run the tests; the one named by TEST in the environment, or all.  The last line is
# "N passed, N failed".
#
# A test of tests/sh has a guest of its own: it ends with "passed" and its guest's shell with 0, or
# it failed.  Parameters that its kernel needs stand behind "# kernel: " in it.  A test of tests/host
# runs in the build root.

. "$(dirname "$0")/guest.sh"

# Seconds after which a guest hangs, by far more than any test takes.
limit=150

dir=$(mktemp -d "$cache/check.XXXXXX")
trap 'rm -rf "$dir"' EXIT

# in_guest NAME: run a test in a guest.
in_guest() {
	boot "$dir" "$limit" /t/lib/run-test.sh "$dir/$1" "test=$1" \
		"$(sed -n 's/^# kernel: //p' "tests/sh/$1")" 2>&1 || :
	[ "$(tail -n 2 "$dir/$1")" = $'passed\ndm-switch guest: 0' ]
}

# on_host NAME: run a test in the build root.
on_host() {
	in_root env "KDIR=$KDIR" bash -eu "tests/host/$1" >"$dir/$1" 2>&1 </dev/null
}

# run KIND NAME: run a test and say how it went.
run() {
	local kind=$1 name=$2 start=$SECONDS
	if "$kind" "$name"; then
		printf 'ok      %s (%d s)\n' "$name" $((SECONDS - start))
		echo passed >"$dir/$name.result"
		return
	fi
	{
		printf 'FAILED  %s (%d s)\n' "$name" $((SECONDS - start))
		for file in "$dir/$name" "$dir/$name.log"; do
			if [ -e "$file" ]; then
				printf '%s\n' "--- the end of what ${file#"$dir/"} has"
				tail -n 30 "$file"
			fi
		done
	} 2>&1 | tr -d '\r' | cat -v
}

tests() {
	local name
	(cd tests/host && printf 'on_host %s\n' *)
	(cd tests/sh && printf 'in_guest %s\n' *)
}

chosen=$(tests | awk -v name="${TEST:-}" 'name == "" || $2 == name')
[ -n "$chosen" ] || die "there is no test ${TEST:-}; there are:
$(tests | sed 's/^[^ ]* /  /')"

prepare_guest "$dir"
count=0
while read -r kind name; do
	# As many at a time as there are processors.
	while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do
		wait -n || :
	done
	run "$kind" "$name" &
	count=$((count + 1))
done <<<"$chosen"
wait
passed=$(find "$dir" -name '*.result' | wc -l)
printf '%d passed, %d failed\n' "$passed" $((count - passed))
[ "$passed" -eq "$count" ]
