#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# DKMS calls this, on the machines that the module is installed on: see dkms.conf.
#
# dkms.sh build RELEASE HEADERS: build the module for the kernel RELEASE, whose headers are in HEADERS.  DKMS runs this
# in its copy of the source, before its MAKE, which then finds the module there.
# dkms.sh undo RELEASE ARCH: DKMS runs this when it has installed the module for a kernel.
#
# If a MAKE of DKMS's fails, whatever the reason, so does the installation of the package that it runs for: a kernel
# stays half configured.  A build that fails here says why, and its status is 77, with which DKMS 3.1 and newer go on
# without the module.  Older ones (Debian 12) ignore the status.  They get an empty file for a module, which the second
# command takes away again.

set -euo pipefail

command=$1 release=$2
# The module's directory in DKMS's tree.  DKMS calls this by its link to the source, which is where programs are: its
# copy, `build`, may be on a file system without programs, and is incomplete where there is no space.
top=${0%/source/scripts/dkms.sh}
top=${top%/build/..}

# output_of_dkms: where DKMS itself prints, if it has a log for what this script prints.
output_of_dkms() {
	local pid=$PPID
	[ make.log -ef /proc/self/fd/2 ] || return
	while [ "/proc/$pid/fd/2" -ef make.log ]; do
		pid=$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")
	done
	echo "/proc/$pid/fd/2"
}

# clear [NAME]: delete all of DKMS's copy of the source, more than 100 MB after a build, but the log and NAME.
clear() {
	find . -mindepth 1 ! -name make.log ! -name "${1:-make.log}" -delete
}

# skip REASON: say why there is no module for this kernel, in the log and on the terminal.
skip() {
	local text output
	text=$(echo "dm-switch is not built for the kernel $release: $1.  This machine is unchanged.  When the \
reason is gone, \"dkms autoinstall -k $release\" builds the module." | fmt -w 78) || text=$1
	printf '\n%s\n\n' "$text" >&2 || :
	if output=$(output_of_dkms); then
		printf '\n%s\n\n' "$text" 2>/dev/null >>"$output" || :
	else
		: >dm-switch.ko || :
	fi
	exit 77
}

# first PATTERN TEXT: the first line of the text that matches.
first() {
	printf '%s\n' "$2" | awk -v pattern="$1" '$0 ~ pattern && !found++'
}

# why TEXT: the reason why a build failed, out of what it printed.
why() {
	local line
	line=$(first '\\*\\*\\* dm-switch: ' "$1" | sed 's/.*\*\*\* dm-switch: \(.*\)\.  Stop\.$/\1/')
	if [ -n "$line" ]; then
		echo "$line"
		return
	fi
	line=$(first 'No space left|I/O error|Killed|SIGKILL|[Oo]ut of memory|allocat.*(memory|failed)' "$1")
	case $line in
	*"No space"* | *"I/O error"*) echo "there is no space left in $PWD, where a build takes up to 300 MB" ;;
	?*) echo "the compiler, which takes up to 1 GB of memory, did not get it (\"$line\")" ;;
	*)
		line=$(first '^(.*[^a-z])?[Ee]rror' "$1")
		echo "the build failed (\"$line\"; $PWD/make.log has all that it printed)"
		;;
	esac
}

# not_enrolled: set key to the certificate of the key with which DKMS signs modules; secure boot is on, and that is not
# enrolled.  Where the kernel that runs is not this system's, this is an image for another machine.
not_enrolled() {
	key=$(sed -n 's/^ *mok_certificate=//p' /etc/dkms/framework.conf{,.d/*.conf} 2>/dev/null | tail -n 1 | tr -d \'\")
	key=${key:-/var/lib/dkms/mok.pub}
	[ -e "/lib/modules/$(uname -r)" ] && [ "$(mokutil --sb-state 2>/dev/null)" = "SecureBoot enabled" ] &&
		mokutil --test-key "$key" 2>/dev/null | grep -Eq 'is not enrolled|in the enrollment request'
}

build() {
	local headers=$1 arguments=() said='' reason key
	# Whatever goes wrong in here.
	trap 'exit 77' EXIT
	cd "$top/build"
	if grep -q '^CONFIG_CC_IS_CLANG=y' "$headers/include/config/auto.conf"; then
		arguments+=(LLVM=1)
	fi
	if [ -e scripts/dkms.sh ] && [ ! -x scripts/dkms.sh ]; then
		reason="$PWD, from where the compiler loads a library, is on a file system that is mounted noexec"
	elif not_enrolled; then
		reason="secure boot is on, and the key with which DKMS signs modules is not enrolled, so the kernel would \
load neither this module nor, in its place, its own: \"mokutil --import $key\" and a reboot enroll the key"
	elif said=$(make -C "$headers" "M=$PWD" "-j$(nproc)" "${arguments[@]}" modules 2>&1); then
		clear dm-switch.ko
		printf '%s\n' "$said" >>make.log || :
		trap - EXIT
		return
	else
		reason=$(why "$said")
	fi
	clear || :
	printf '%s\n' "$said" >>make.log || :
	skip "$reason"
}

undo() {
	local built=$top/$release/$1 module
	module=$(echo "$built/module/dm-switch.ko"*)
	if [ -z "$(modinfo -F version "$module" 2>/dev/null)" ]; then
		install -D -m 644 -t "$top/build" "$built/log/make.log" || :
		dkms unbuild "dm-switch/$(basename "$top")" -k "$release" -a "$1" >/dev/null
	fi
}

"$command" "$3"
