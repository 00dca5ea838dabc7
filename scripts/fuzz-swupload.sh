#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make fuzz-swupload.
#
# fuzz-swupload.sh: fuzz swupload with libFuzzer, which changes inputs that reached something new.  The model in
# tools/fuzz judges INPUTS of the environment, a quarter of each kind.  SEED there has the same inputs again, as long as
# the sources and the corpus are the same.  Print for each kind the inputs, and the edges of swupload and the model that
# they and the corpus reached.
#
# An input that the model judges wrong is added to the corpus in tests/swupload, which the test swupload runs.  If KEEP
# is set, and nothing is wrong, the corpus becomes the fewest inputs that reach the same edges.

. "$(dirname "$0")/lib.sh"

corpus=$top/tests/swupload/corpus
inputs=${INPUTS:-400000}
seed=${SEED:-$(od -A n -t u4 -N 4 /dev/urandom | tr -d ' ')}
dir=$(mktemp -d "$cache/fuzz-swupload.XXXXXX")
trap 'rm -rf "$dir"' EXIT

# fuzzer ARGUMENT...: run cargo test on the fuzzer, for inputs of $kind.  Addresses are always the same, because libFuzzer
# puts what is compared into inputs.
fuzzer() {
	in_root env "KIND=$kind" setarch -R cargo test -q --locked --lib --target-dir "$cache/fuzz-swupload" "$@"
}

need_root
cd "$top/tests/swupload"
kind='' usually=90 step "building libFuzzer and swupload" fuzzer --no-run
printf 'dm-switch: fuzzing with %s inputs; make fuzz-swupload INPUTS=%s SEED=%s has the same\n' "$inputs" "$inputs" "$seed" >&2
for kind in file message table answer; do
	mkdir "$dir/$kind" "$dir/$kind.new"
	timed "$dir/log" "fuzzing: $kind" fuzzer -- -runs=$((inputs / 4)) -seed="$seed" -reload=0 -max_len=512 \
		-timeout=60 -artifact_prefix="$corpus/$kind/" "$dir/$kind" "$corpus/$kind"
	if [ "$status" -ne 0 ]; then
		grep -v -E '^#[0-9]|NEW_FUNC' "$dir/log" | cut -c 1-1000 | tail -n 30 >&2
		die "swupload and its model disagree, see above; make check TEST=swupload runs the input again"
	fi
	sed -n "s/^#\([0-9]*\)\tDONE *cov: \([0-9]*\) .*/$kind: \1 inputs, \2 edges/p" "$dir/log"
	if [ -n "${KEEP:-}" ]; then
		step "merging: $kind" fuzzer -- -artifact_prefix="$dir/" -set_cover_merge=1 -use_counters=0 "$dir/$kind.new" "$dir/$kind" "$corpus/$kind"
		rm -rf "${corpus:?}/$kind"
		mv "$dir/$kind.new" "$corpus/$kind"
	fi
done
