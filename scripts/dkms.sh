#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# dkms.sh RELEASE HEADERS: look whether the module can be built for the kernel RELEASE, whose headers are in HEADERS.
# DKMS runs this in its copy of the module's source, before it builds.
#
# Where the module cannot be built, this says why, and the exit status is 77, with which DKMS goes on without the
# module: neither DKMS nor apt fails for that.  (DKMS before 3.1 ignores the status.  It builds, and fails.)

set -euo pipefail

release=$1 headers=$2

# output_of_dkms: where DKMS itself prints, if it has a log for what this script prints.
output_of_dkms() {
	local pid=$PPID
	[ make.log -ef /proc/self/fd/2 ] || return
	while [ "/proc/$pid/fd/2" -ef make.log ]; do
		pid=$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")
	done
	echo "/proc/$pid/fd/2"
}

# skip REASON: say why there is no module for this kernel, in the log and on the terminal.
skip() {
	local text output
	text=$(fmt -w 78 <<<"dm-switch is not built for the kernel $release: $1.  This machine stays as it was; \
when that is no more so, \"dkms autoinstall -k $release\" builds the module.")
	printf '\n%s\n\n' "$text" >&2
	if output=$(output_of_dkms); then
		printf '\n%s\n\n' "$text" 2>/dev/null >>"$output" || :
	fi
	exit 77
}

# Where make stops for another reason, so does the build, and DKMS shows its log.
said=$(make -C "$headers" "M=$PWD" CHECK_ONLY=y modules 2>&1) || :
reason=$(sed -n 's/.*\*\*\* dm-switch: \(.*\)\.  Stop\.$/\1/p' <<<"$said")
[ -z "$reason" ] || skip "$reason"
