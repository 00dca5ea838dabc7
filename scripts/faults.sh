#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make faults.
#
# faults.sh: show that the tests see faults.  Each patch in tests/faults makes one that a maintainer could make.  Apply
# one after the other to a copy of the checkout, run the tests that the patch names, and print which of them failed.
# A fault that no test sees fails the run.  FAULT in the environment names those to make; the default is all.
#
# At the top of a patch is a line about the fault, then "# tests: " with the tests, and with "# kernel: debug" the
# kernel of make check-debug.

. "$(dirname "$0")/lib.sh"
cd "$top"

read -ra names <<<"${FAULT:-$(cd tests/faults && echo *)}"
copy=$(mktemp -d "$cache/faults.XXXXXX")
trap 'rm -rf "$copy"' EXIT
scripts/dist.sh "$copy"
tar -xzf "$copy"/*.tar.gz -C "$copy" --strip-components=1

# header NAME PATCH: what the top of a patch says.
header() {
	sed -n "s/^# $1: //p; /^--- /q" "$2"
}

unseen=0
for name in "${names[@]}"; do
	patch=$top/tests/faults/${name%.patch}.patch
	[ -e "$patch" ] || die "there is no fault $name; there are: $(cd tests/faults && echo *)"
	git -C "$copy" apply "$patch" || die "$name does not apply: make the same change in today's source, and a patch of it"
	start=$SECONDS
	(
		cd "$copy"
		TEST=$(header tests "$patch") KERNEL=$(header kernel "$patch") scripts/check.sh
	) >"$copy/faults.log" 2>&1 || :
	git -C "$copy" apply -R "$patch"
	case $(tail -n 1 "$copy/faults.log") in
	*", 0 failed"*)
		unseen=$((unseen + 1))
		printf 'NOT SEEN %s\n' "${name%.patch}"
		;;
	*" failed"*)
		printf 'seen     %s, by %s (%d s)\n' "${name%.patch}" \
			"$(sed -n 's/^FAILED  //p' "$copy/faults.log" | paste -sd ' ')" $((SECONDS - start))
		;;
	*)
		tail -n 40 "$copy/faults.log" >&2
		die "the tests did not run with the fault ${name%.patch}"
		;;
	esac
done
printf '%d of %d faults seen\n' $((${#names[@]} - unseen)) ${#names[@]}
[ "$unseen" -eq 0 ]
