#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make fuzz.
#
# fuzz.sh: fuzz the module against a model of it, in QEMU, for TIME seconds of the environment, with the
# scripts of SEED there and on, and print what was done.
#
# A failure comes with the command that has it again.  A guest that dies takes with it what it was doing: the
# script that was begun last is run once more, with each step printed before it is done.

programs=(swupload fuzz)
. "$(dirname "$0")/guest.sh"

seconds=${TIME:-60}
dir=$(mktemp -d "$cache/fuzz.XXXXXX")
trap 'rm -rf "$dir"' EXIT

# in_guest TEXT OUTPUT SECONDS PARAMETER...: run the fuzzer, for at most SECONDS seconds, and show TEXT on a terminal.
# The fuzzer ends by itself, unless the guest dies.
in_guest() {
	local text=$1 output=$2 limit=$3 status=0
	shift 3
	start_clock "$text"
	boot "$dir/base.initrd" "$limit" 1 /t/lib/run-fuzz.sh "$output" kasan_multi_shot "$@" 2>>"$output.errors" || status=$?
	stop_clock
	[ "$status" -eq 0 ] && grep -q "^dm-switch guest: [0-9]" "$output"
}

prepare_guest "$dir" "$fuzzer/fuzz"
printf 'dm-switch: fuzzing for %s s; %s begins with the same\n' "$seconds" "$again$seed" >&2
# A script that fails is cut down for two minutes at most.
if usually=$seconds in_guest "fuzzing" "$dir/output" $((seconds + 240 * slowness)) \
	"seed=$seed" "limit=--seconds,$seconds"; then
	printed "$dir/output" | sed -e '/^script /d' -e '/^dm-switch guest:/d'
	grep -qx "dm-switch guest: 0" "$dir/output" || die "fuzzing failed, from seed $seed on; see above"
	exit
fi
last=$(sed -n 's/^script [0-9]* of seed \([0-9]*\)\r*$/\1/p' "$dir/output" | tail -n 1)
printed "$dir/output.log" | tail -n 60
cat "$dir/output.errors"
printf 'dm-switch: the guest died in the script of seed %s; once more, step by step\n' "${last:=$seed}" >&2
if in_guest "running the script again" "$dir/again" $((120 * slowness)) "seed=$last" "limit=--scripts,1,--trace"; then
	printf 'dm-switch: this time it did not\n' >&2
fi
printed "$dir/again" | tail -n 20
die "the guest died in a script: $again$last has it again"
