# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# kernel.sh, bench.sh and fuzz.sh source this.
#
# The series of kernels that the module supports, oldest first, and the suite of Debian's that has each.

# shellcheck disable=SC2034 # used by the scripts that source this
series=(6.1 6.12 7.2 7.3)

declare -A suites=(
	[6.1]=bookworm
	[6.12]=trixie
	[7.2]=trixie-backports
	[7.3]=trixie-backports
)

# The series with CONFIG_RUST whose crate kernel has all that the module uses.
# shellcheck disable=SC2034
rust_series=(7.2 7.3)

# The series of each architecture that is used if KVER does not name one.
# shellcheck disable=SC2034
declare -A default_series=(
	[amd64]=${series[-1]}
	[arm64]=6.12
)

# series_of VERSION: prints the series that a version or a release of a kernel belongs to.
series_of() {
	local name
	for name in "${series[@]}"; do
		case $1 in
		"$name" | "$name"[.+-]*) printf '%s\n' "$name" ;;
		esac
	done
}
