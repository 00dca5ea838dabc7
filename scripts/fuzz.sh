#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make fuzz.
#
# fuzz.sh: fuzz the module against a model of it, in QEMU, for TIME seconds of the environment, and print what was done.
# SEED there has the same random numbers again.  With SCRIPT, which a failure prints, run that script alone.
#
# With LED=yes, scripts are led by what earlier ones reached of the module; tests/fuzz/corpus comes first.  With LED=no,
# all are made of random numbers.  The default is yes if the module can be built with counters, which say what is
# reached.  They are printed with LED=no, too.
#
# KEEP=1 renews the corpus: it becomes few and short scripts that reach all counters which the corpus or the run
# reached.  Do so after a change of the module, or of tests/fuzz/generate.rs, which gives the seeds other steps.
#
# A failure is printed with the command that runs its script again.  If the guest dies, it cannot print what it was
# doing: the script that was begun last is then run once more, with each step printed before it is done.

programs=(swupload fuzz)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/series.sh"

# can_count: the module can be built with counters (see coverage.sh), because its kernel has the crate "kernel".
can_count() {
	[ "$architecture" = "$host_architecture" ] && [ "${CRATE:-kernel}" = kernel ] &&
		[[ " ${rust_series[*]} " == *" $(series_of "${KVER:-${default_series[$architecture]}}") "* ]]
}

if can_count; then
	export COVERAGE=yes
fi
led=${LED:-${COVERAGE:-no}}
case $led/${COVERAGE:-no} in
no/* | yes/yes) ;;
yes/no)
	die "LED=yes needs a module with counters, which is built only for ${rust_series[*]} on $host_architecture," \
		"with CRATE=kernel"
	;;
*) die "LED is yes or no, not $led" ;;
esac
if [ -n "${KEEP:-}" ] && { [ "$led" = no ] || [ -n "${SCRIPT:-}" ]; }; then
	die "KEEP renews the corpus from a run that is led, not with LED=no or SCRIPT"
fi
# It sources lib.sh again: with COVERAGE, the build root has clang, too.
. "$(dirname "$0")/guest.sh"

seconds=${TIME:-60}
dir=$(mktemp -d "$cache/fuzz.XXXXXX")
trap 'rm -rf "$dir"' EXIT

# in_guest TEXT OUTPUT SECONDS ARGUMENT...: run the fuzzer with these arguments, for at most SECONDS seconds, and show
# TEXT on a terminal.  The fuzzer ends by itself, unless the guest dies.
in_guest() {
	local text=$1 output=$2 limit=$3 status=0
	shift 3
	start_clock "$text"
	boot "$dir/base.initrd" "$limit" 1 /t/lib/run-fuzz.sh "$output" kasan_multi_shot "fuzz=$(IFS=+ && echo "$*")" \
		2>>"$output.errors" || status=$?
	stop_clock
	[ "$status" -eq 0 ] && grep -q "^dm-switch guest: [0-9]" "$output"
}

mode=random limit=$((seconds + 240 * slowness))
if [ "$led" = yes ]; then
	mode=led
	if [ -n "${KEEP:-}" ]; then
		mode=renew limit=$((limit + 3600 * slowness))
	fi
fi
arguments=("$mode" "$seed" seconds "$seconds")
if [ -n "${SCRIPT:-}" ]; then
	arguments=(script "$SCRIPT")
else
	printf 'dm-switch: fuzzing for %s s; %s LED=%s SEED=%s begins with the same scripts\n' "$seconds" "$again" "$led" "$seed" >&2
fi
files=("$fuzzer/fuzz" tests/fuzz/corpus)
if [ -n "${COVERAGE:-}" ]; then
	need_test_modules
	files+=("$test_modules/coverage.ko")
fi
prepare_guest "$dir" "${files[@]}"
# A script that fails is cut down for two minutes at most, one of a new corpus for three.
if usually=$seconds in_guest "fuzzing" "$dir/output" "$limit" "${arguments[@]}"; then
	printed "$dir/output" | sed -e '/^script /d' -e '/^corpus: /d' -e '/^dm-switch guest:/d'
	grep -qx "dm-switch guest: 0" "$dir/output" || die "fuzzing failed; see above"
	if [ "$mode" = renew ]; then
		printed "$dir/output" | sed -n 's/^corpus: //p' >"$dir/corpus"
		[ -s "$dir/corpus" ] || die "the fuzzer printed no corpus"
		sed -i '/^[^#]/d' tests/fuzz/corpus
		cat "$dir/corpus" >>tests/fuzz/corpus
	fi
	exit
fi
last=$(printed "$dir/output" | sed -n 's/^script [0-9]*: //p' | tail -n 1)
printed "$dir/output.log" | tail -n 60
cat "$dir/output.errors"
[ -n "$last" ] || die "the guest died before the first script; see above"
printf 'dm-switch: the guest died in the script %s; once more, step by step\n' "$last" >&2
if in_guest "running the script again" "$dir/again" $((120 * slowness)) script "$last" trace; then
	printf 'dm-switch: this time it did not\n' >&2
fi
printed "$dir/again" | tail -n 20
die "the guest died in a script; this runs it again: $again SCRIPT=$last"
