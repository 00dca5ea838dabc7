#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make check, make check-debug or make check-kcsan; coverage.sh and faults.sh call it, too.
#
# check.sh: run the tests, those that TEST in the environment names or all; of one alone, what it prints is shown.
# EXCEPT in the environment names tests that are not run.  The last line is "N passed, N failed", with ", N skipped" if
# there are such, or tests for another architecture.
#
# Tests of tests/sh run in guests, several one after the other in each.  One that fails, hangs or
# panics ends its guest, and the next ones get a new one.  A guest has one processor, because to emulate
# a second one takes half as much time again.  A test that needs more has "# processors: 2" in it, one that counts
# instructions "# processors: counted", one for which the kernel needs parameters has "# parameters: ", one
# that needs the programs and modules of storage.cpio or array.cpio has "# image: storage" or
# "# image: array", and only those that need the same share a guest.  Tests of tests/host run in the build root, or
# with "# root: builder" in the root that has the compilers for the kernel.
#
# Behind "# kernels: " a test has those that it is for: stock, which are Debian's, or what KERNEL names in the
# environment (see kernel.sh).  One without that is for stock and debug.  Behind "# architectures: " it has those that
# it is for, as ARCH has them; one without that is for all.
#
# COVERAGE in the environment is a directory where coverage.sh finds the module, which counts what it does, and its
# counters, a file for each guest.  Then there are neither the tests of the host, where the module does not run, nor
# instructions, which would count those of the counters, too.

programs=(swupload fuzz)
. "$(dirname "$0")/guest.sh"

# Tests that a guest gets at most.
batch=12

# Seconds after which a test hangs: by far more than any of them takes.
limit=$((600 * slowness))

dir=$(mktemp -d "$cache/check.XXXXXX")
# If a signal ends this, the shells in the background end, and with them their guests (see emulate).
trap 'jobs -p | xargs -r kill 2>/dev/null || :; rm -rf "$dir"' EXIT

# said NAME FILE: what the file has from the test's own beginning on.
said() {
	printed "$2" | awk -v begin="dm-switch guest: test $1\$" '$0 ~ begin { text = "" }
		{ text = text $0 "\n" } END { printf "%s", text }'
}

# passed NAME SECONDS FILE: say that a test passed; where it is the only one, what it printed.
passed() {
	clear_clock
	if [ "$count" -eq 1 ]; then
		said "$1" "$3" | grep -v '^dm-switch guest: ' || :
	fi
	printf 'ok      %s (%d s)\n' "$1" "$2"
	echo passed >"$dir/$1.result"
}

# failed NAME FILE...: say that a test failed, with the ends of the files.
failed() {
	local name=$1 file
	shift
	clear_clock
	printf 'FAILED  %s\n' "$name"
	for file; do
		[ -s "$file" ] || continue
		printf -- '--- the end of what %s has\n' "$(basename "$file")"
		said "$name" "$file" | tail -n 30
	done
}

# skip NAME WHY: say that a test is not run, and count it.
skipped=0
skip() {
	clear_clock
	printf 'skipped %s: %s\n' "$1" "$2"
	skipped=$((skipped + 1))
}

# on_host NAME: run a test without a guest, in the root that it needs.
on_host() {
	local start=$SECONDS where=in_root status=0
	if [ "$(needs root "tests/host/$1")" = builder ]; then
		where=in_builder
	fi
	"$where" env "KDIR=$KDIR" "KO=$dir/files/t/dm-switch.ko" "CRATE=$CRATE" "SWUPLOAD=$SWUPLOAD" "SEED=$seed" \
		timeout "$limit" bash -eu "tests/host/$1" >"$dir/$1" 2>&1 </dev/null || status=$?
	if [ "$status" -eq 0 ]; then
		passed "$1" $((SECONDS - start)) "$dir/$1"
		return
	fi
	if [ "$status" -eq 124 ]; then
		echo "FAILED: the test did not end in $limit seconds" >>"$dir/$1"
	fi
	failed "$1" "$dir/$1"
}

# needs WHAT FILE: what a test needs, behind "# WHAT: " in its file.
needs() {
	sed -n "s/^# $1: //p" "$2"
}

# all_needs NAME
all_needs() {
	sed -nE '/^# (processors|parameters|image): /p' "tests/sh/$1"
}

# in_guests NAME...: run tests, all of which need the same of a guest.
in_guests() {
	local output=$dir/$1 image processors seconds
	while [ $# -gt 0 ]; do
		image=$(needs image "tests/sh/$1")
		processors=$(needs processors "tests/sh/$1")
		boot "$dir/${image:-base}.initrd" $((limit * $#)) "${processors:-1}" /t/lib/run-tests.sh "$output" \
			"tests=$(IFS=, && echo "$*")" "seconds=$((limit - 10))" "seed=$seed" ${COVERAGE:+coverage=1} \
			"$(needs parameters "tests/sh/$1")" 2>>"$output.errors" || :
		if [ -n "${COVERAGE:-}" ]; then
			sed -n 's/^dm-switch guest: counters //p' "$output" >"$COVERAGE/counters.$1"
		fi
		while [ $# -gt 0 ] && seconds=$(grep -xsm 1 "dm-switch guest: passed $1 .*" "$output"); do
			passed "$1" "${seconds##* }" "$output"
			shift
		done
		if [ $# -gt 0 ]; then
			failed "$1" "$output" "$output.log" "$output.errors"
			shift
		fi
	done
}

# meant DIR: the names of those tests there that are for this kernel.
meant() {
	local test kernels
	for test in "$1"/*; do
		kernels=$(needs kernels "$test")
		if [[ " ${kernels:-stock debug} " == *" ${KERNEL:-stock} "* ]]; then
			printf '%s\n' "${test##*/}"
		fi
	done
}

# tests: where each test is run, and its name.
tests() {
	if [ -n "${COVERAGE:-}" ]; then
		meant tests/sh | sed '/^instructions$/d; s/^/in_guests /'
		return
	fi
	meant tests/sh | sed 's/^/in_guests /'
	meant tests/host | sed 's/^/on_host /'
}

# is_for_architecture WHERE NAME: the test is for the guest's architecture.
is_for_architecture() {
	local architectures
	architectures=$(needs architectures "$(file_of "$1" "$2")")
	[[ " ${architectures:-$architecture} " == *" $architecture "* ]]
}

# file_of WHERE NAME: the test's file.
file_of() {
	case $1 in
	in_guests) printf 'tests/sh/%s\n' "$2" ;;
	on_host) printf 'tests/host/%s\n' "$2" ;;
	esac
}

# start COMMAND [ARGUMENT...]: run in the background, one more at a time than there are processors, for
# tests wait, too.
start() {
	while [ "$(jobs -pr | wc -l)" -gt "$(nproc)" ]; do
		wait -n || :
	done
	"$@" &
}

chosen=$(tests)
read -ra names <<<"${TEST:-}"
read -ra except <<<"${EXCEPT:-}"
for name in "${names[@]}" "${except[@]}"; do
	grep -q " $name\$" <<<"$chosen" || die "there is no test $name; there are:
$(awk '{ print "  " $2 }' <<<"$chosen")"
done
if [ ${#names[@]} -gt 0 ]; then
	chosen=$(awk -v names=" ${names[*]} " 'index(names, " " $2 " ")' <<<"$chosen")
fi
count=$(wc -l <<<"$chosen")

need_test_modules
prepare_guest "$dir" "$test_modules"/*.ko "$fuzzer/fuzz" tests/fuzz/corpus
[ -z "${COVERAGE:-}" ] || cp "$dir/files/t/dm-switch.ko" "$COVERAGE"
printf 'dm-switch: what is random in tests is made from SEED=%s\n' "$seed" >&2
start_clock "running the tests"
declare -A alike=()
while read -r where name; do
	if [[ " ${except[*]} " == *" $name "* ]]; then
		skip "$name" "EXCEPT names it"
	elif ! is_for_architecture "$where" "$name"; then
		skip "$name" "not for $architecture"
	elif [ "$where" = on_host ]; then
		start on_host "$name"
	else
		alike["needs: $(all_needs "$name")"]+=" $name"
	fi
done <<<"$chosen"
# Those that need nothing, of which there are most, come last, to fill what time is left.  Neighbours, of which
# several take long, go to different guests.
while IFS= read -rd '' need; do
	read -ra names <<<"${alike[$need]}"
	guests=$(((${#names[@]} + batch - 1) / batch))
	for ((number = 1; number <= guests; number++)); do
		mapfile -t share < <(printf '%s\n' "${names[@]}" | sed -n "$number~${guests}p")
		start in_guests "${share[@]}"
	done
done < <([ ${#alike[@]} -eq 0 ] || printf '%s\0' "${!alike[@]}" | sort -rz)
wait
stop_clock
passed=$(find "$dir" -name '*.result' | wc -l)
count=$((count - skipped))
printf '%d passed, %d failed' "$passed" $((count - passed))
[ "$skipped" -eq 0 ] || printf ', %d skipped' "$skipped"
printf '\n'
[ "$passed" -eq "$count" ]
