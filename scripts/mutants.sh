#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make mutants.
#
# mutants.sh: show that the tests on the host see changes of the policy, which is dm-switch.rs without its wrappers.
# cargo-mutants makes hundreds of mutants of it.  In each, one operator or match arm is changed, or one function only
# returns a constant.  Run the tests with each, and print how many of them fail.  A mutant with which no test fails
# survives.  One that survives and is not in tests/policy/survivors, with a reason, fails the run, and so does one in that
# file that does not survive.  SEED in the environment picks the tests' random cases.

. "$(dirname "$0")/lib.sh"
cd "$top"

# The newest version that the build root's compiler builds.
version=26.0.0

copy=$(mktemp -d "$cache/mutants.XXXXXX")
trap 'rm -rf "$copy"' EXIT
out=$copy/mutants.out

# mutate SHARE OPT_LEVEL SECONDS ARGUMENT...: run the tests with each mutant that has survived so far, with one of SHARE
# cases, for at most SECONDS of processor time, and with these arguments of cargo-mutants.
mutate() {
	local share=$1 opt_level=$2 seconds=$3
	shift 3
	# A mutant may take all memory that it gets.  Status 2: some survive.
	in_root env "PATH=$mutants/bin:/usr/bin" KIND=mutants "SHARE=$share" "SEED=${SEED:-1}" CARGO_PROFILE_TEST_DEBUG=0 \
		"CARGO_PROFILE_TEST_OPT_LEVEL=$opt_level" \
		"CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=prlimit --cpu=$seconds --as=8000000000" \
		"$copy/tests/policy/cargo.sh" mutants --in-place --iterate --timeout 100000 --output "$copy" --no-shuffle \
		--colors never --cargo-arg=--locked "$@" --test-threads=1 || [ $? -eq 2 ]
	find "$out/log" -type f -exec grep -l SIGXCPU {} + >>"$copy/endless" || :
}

# survivors: the mutants that no test killed, as tests/policy/survivors has them.
survivors() {
	local number name
	sed -E 's/^dm-switch.rs:([0-9]+):[0-9]+: /\1 /; s/r#new/new/' "$out"/{missed,unviable}.txt |
		while read -r number name; do
			printf '%s: %s\n' "$name" "$(sed -n "$number s/^\s*//p" dm-switch.rs)"
		done
}

# lines FILE...: print the number of lines.
lines() {
	cat "$@" | wc -l
}

awk -v RS= '!/^#/ && !/\n\t/ { print; found = 1 } END { exit found }' tests/policy/survivors ||
	die "tests/policy/survivors has no reason for that"
need_root
mutants=$cache/cargo-mutants-$version-${root##*-}
usually=240 once "$mutants" "building cargo-mutants" in_root cargo install --locked --debug "cargo-mutants@$version" --root

cp -r --parents dm-switch.rs compat tests/{fuzz,policy} "$copy"
# cargo-mutants leaves out what has the attribute, which has no other effect, and functions that are spelled `new`.
sed -i '/^mod in_tree /!s/^mod .* {$/#[cfg_attr(doc, mutants::skip)] &/; s/\bfn new(/fn r#new(/' "$copy/dm-switch.rs"

usually=2400 step "running the mutants, with one of 100 cases" mutate 100 0 10 -- -- --skip a_step_that_fails_changes_nothing
total=$(lines "$out"/{caught,missed,unviable}.txt)
unviable=$(lines "$out/unviable.txt")
usually=2400 step "those that survive, with all cases" mutate 1 2 1000 -- --
usually=600 step "those that survive, with threads in all orders" mutate 1 2 100 --features=loom -- --

survivors | LC_ALL=C sort >"$copy/survivors"
sed '/^[#\t]/d; /^$/d' tests/policy/survivors | LC_ALL=C sort >"$copy/listed"
LC_ALL=C comm -23 "$copy/survivors" "$copy/listed" >"$copy/new"
LC_ALL=C comm -13 "$copy/survivors" "$copy/listed" >"$copy/old"
sed 's/^/SURVIVES  /' "$copy/new"
sed 's/^/KILLED    /' "$copy/old"
left=$(lines "$copy/survivors")
printf '%d mutants: %d killed, %d of them by the limit of time; %d do not build; %d survive with a reason, %d without one\n' \
	"$total" $((total - unviable - left)) "$(lines "$copy/endless")" "$unviable" \
	$((left - $(lines "$copy/new"))) "$(lines "$copy/new")"
[ "$(lines "$copy/new" "$copy/old")" -eq 0 ]
