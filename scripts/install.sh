#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# install.sh: put what was built where a machine looks for it: the module into updates/ of its
# kernel's modules, where it comes before the kernel's own of the same name, swupload, the manual pages
# and its completion under PREFIX.  Without swupload, if that was not built.  With --undo, take them away from there.
# DESTDIR stands before all paths.

. "$(dirname "$0")/lib.sh"
cd "$top"

prefix=${DESTDIR:-}${PREFIX:-/usr/local}
completions=$prefix/share/bash-completion/completions
modules=${DESTDIR:-}/lib/modules

# update RELEASE: have modprobe find the module, or no more.
update() {
	if [ -z "${DESTDIR:-}" ]; then
		depmod "$1"
	fi
}

if [ "${1:-}" = --undo ]; then
	rm -f "$prefix/sbin/swupload" "$prefix/share/man/man4/dm-switch.4" "$prefix/share/man/man8/swupload.8" \
		"$completions/swupload"
	for module in "$modules"/*/updates/dm-switch.ko; do
		if [ -e "$module" ]; then
			rm "$module"
			update "$(basename "${module%/updates/*}")"
		fi
	done
	exit
fi

release=$(grep -aom 1 'vermagic=[^ ]*' dm-switch.ko | cut -d = -f 2)
install -D -m 644 -t "$modules/$release/updates" dm-switch.ko
install -D -m 644 -t "$prefix/share/man/man4" dm-switch.4
if [ -e "$tools/swupload" ]; then
	install -D -m 755 -t "$prefix/sbin" "$tools/swupload"
	install -D -m 644 -t "$prefix/share/man/man8" tools/swupload.8
	install -D -m 644 -t "$completions" tools/bash-completion/swupload
else
	printf 'dm-switch: swupload is not built, and not installed: make tools builds it\n' >&2
fi
update "$release"
printf 'dm-switch: installed for %s: load it with modprobe dm-switch\n' "$release"
