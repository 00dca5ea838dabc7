#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# dkms.sh RELEASE HEADERS: make kernel/build, the tree that dkms builds the module for the kernel RELEASE
# against, whose headers are in HEADERS.  dkms runs this in its copy of the module's source, before it builds.
#
# The kernel's source comes from the package linux-source, where that is installed in the headers' version;
# else it is downloaded from the archive that apt is set up with, and thrown away after the build.
#
# Where there cannot be a module for the kernel, the exit status is 77, with which dkms goes on without it:
# neither dkms nor apt fails for that.

set -euo pipefail

scripts=$(dirname "$0")
. "$scripts/series.sh"
release=$1 headers=$2

# output_of_dkms: where dkms itself prints.  What this script prints goes into dkms's log.
output_of_dkms() {
	local pid=$PPID
	while [ "/proc/$pid/fd/2" -ef /proc/self/fd/2 ]; do
		pid=$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")
	done
	echo "/proc/$pid/fd/2"
}

# skip REASON: say why there is no module for this kernel, in the log and on the terminal.
skip() {
	local text output
	output=$(output_of_dkms)
	text=$(fmt -w 78 <<<"dm-switch is not built for the kernel $release: $1.  This machine stays as it was; \
when that is no more so, \"dkms autoinstall -k $release\" builds the module.")
	echo "$text"
	printf '\n%s\n\n' "$text" 2>/dev/null >>"$output" || :
	exit 77
}

# is_supported: the kernel is of a series that the module supports.
is_supported() {
	local supported
	for supported in "${series[@]}"; do
		case $release in
		"$supported".*) return ;;
		esac
	done
	return 1
}

# setting NAME: from the kernel's configuration, without quotes.
setting() {
	sed -n "s/^$1=//p" "$headers/.config" | tr -d '"'
}

# unpack_source: the kernel's source, into kernel/source.
unpack_source() {
	local name version archive
	name=linux-source-$(cut -d . -f 1-2 <<<"$release")
	version=$(dpkg-query -W -f '${Version}' "linux-headers-$release") ||
		skip "its headers have no Rust metadata and belong to no package linux-headers-$release, so that it
is not known which source they are of"
	archive=/usr/src/$name.tar.xz
	if [ "$(dpkg-query -W -f '${Version}' "$name" 2>/dev/null)" != "$version" ] || [ ! -e "$archive" ]; then
		(cd kernel && apt-get -q -o APT::Sandbox::User=root download "$name=$version") ||
			skip "the package $name, version $version, is neither installed nor to be had from the
archive that apt is set up with"
		dpkg-deb -x kernel/*.deb kernel
		archive=kernel$archive
	fi
	mkdir kernel/source
	tar -xf "$archive" -C kernel/source --strip-components 1
	rm -rf kernel/usr kernel/*.deb
}

mkdir kernel
# The source takes more than a gigabyte, and dkms keeps it where this fails.
trap '[ $? -eq 0 ] || rm -rf kernel' EXIT

is_supported || skip "this version of the module is for the series ${series[*]}"
if [ -e "$headers/rust/libkernel.rmeta" ]; then
	ln -s "$headers" kernel/build
	exit
fi
[ "$(setting CONFIG_RUST)" = y ] ||
	skip "that kernel has no support for Rust (CONFIG_RUST), in which the module is written, as
Debian's kernels from trixie-backports have it"
rustc=$(rustc --version) || rustc=none
wanted=$(setting CONFIG_RUSTC_VERSION_TEXT)
[ "$rustc" = "$wanted" ] ||
	skip "the Rust compiler has to be the one that the kernel was built with, $wanted, and the one of
the package rustc here is $rustc"
unpack_source
"$scripts/metadata.sh" kernel/source "$headers" kernel/build
