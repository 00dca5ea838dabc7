#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make install or make uninstall.
#
# install.sh: put what was built where a machine looks for it, all that the packages have but their documents: the
# module into updates/ of its kernel's modules, where it comes before the kernel's own of the same name, whatever
# depmod's search order is; the udev rules, and what gets them into an initramfs, where alone udev and initramfs-tools
# look for them; the rest under PREFIX.  Without swupload, if that was not built, the module alone.  With --undo, take
# them away from there.  DESTDIR stands before all paths, and the machine itself is left alone then.

. "$(dirname "$0")/lib.sh"
cd "$top"

# A plain su leaves root without the directories that depmod and dmsetup are in.
PATH=$PATH:/usr/sbin:/sbin

prefix=${DESTDIR:-}${PREFIX:-/usr/local}
completions=$prefix/share/bash-completion/completions
modules=${DESTDIR:-}/lib/modules
overrides=${DESTDIR:-}/lib/depmod.d
udev=${DESTDIR:-}/usr/lib/udev
hooks=${DESTDIR:-}/usr/share/initramfs-tools/hooks
units=$prefix/lib/systemd/system

# if_there FILE COMMAND...: run a command on this machine, if it has the file; what cannot be done is no reason to stop.
if_there() {
	if [ -z "${DESTDIR:-}" ] && [ -e "$1" ]; then
		"${@:2}" || :
	fi
}

# update RELEASE: have modprobe find the module, or no more.
update() {
	if [ -z "${DESTDIR:-}" ]; then
		depmod "$1"
	fi
}

if [ "${1:-}" = --undo ]; then
	# As debian/dm-switch-tools.prerm and .postrm do.
	if [ -z "${DESTDIR:-}" ]; then
		volumes=$(dmsetup info -c --noheadings -o uuid 2>/dev/null | sed -n 's/^DMSWITCH-VOLUME-//p') || :
		[ -z "$volumes" ] || die "stop this volume first (dm-switch-volume stop NAME): $volumes"
	fi
	if_there /run/dm-switch.lock "$prefix/sbin/dm-switch-volume" release
	rm -f "$prefix/sbin"/{swupload,dm-switch-volume} "$prefix/share/man/man4/dm-switch.4" \
		"$prefix/share/man/man8"/{swupload,dm-switch-volume}.8 "$completions/swupload" \
		"$units/dm-switch"{-members,@}.service "$prefix/include/dm-switch.h" "$prefix/share/ynl/specs/dm-switch.yaml" \
		"$udev/dm-switch-member" "$udev/rules.d"/{58,63-z}-dm-switch.rules "$hooks/dm-switch" \
		"$overrides/dm-switch.conf"
	for module in "$modules"/*/updates/dm-switch.ko; do
		if [ -e "$module" ]; then
			rm "$module"
			update "$(basename "${module%/updates/*}")"
		fi
	done
	if_there /run/udev/control udevadm control --reload
	if_there /run/udev/control udevadm trigger --subsystem-match=block
	if_there /run/systemd/system systemctl daemon-reload
	exit
fi

release=$(grep -aom 1 'vermagic=[^ ]*' dm-switch.ko | cut -d = -f 2)
install -D -m 644 -t "$modules/$release/updates" dm-switch.ko
install -D -m 644 -t "$prefix/share/man/man4" docs/dm-switch.4
sed 's,updates/dkms,updates,' debian/depmod.d/dm-switch.conf | install -D -m 644 /dev/stdin "$overrides/dm-switch.conf"
if [ -e "$tools/swupload" ]; then
	install -D -m 755 -t "$prefix/sbin" "$tools/swupload" tools/dm-switch-volume
	install -D -m 644 -t "$prefix/share/man/man8" tools/swupload.8 tools/dm-switch-volume.8
	install -D -m 644 -t "$prefix/include" dm-switch.h
	install -D -m 644 -t "$prefix/share/ynl/specs" docs/dm-switch.yaml
	install -D -m 644 -t "$units" docs/dm-switch-members.service docs/dm-switch@.service
	install -D -m 755 -t "$udev" udev/dm-switch-member
	install -D -m 644 -t "$udev/rules.d" udev/58-dm-switch.rules udev/63-z-dm-switch.rules
	install -D -m 755 -t "$hooks" udev/hooks/dm-switch
	install -D -m 644 -t "$completions" tools/bash-completion/swupload
	if_there /run/systemd/system systemctl daemon-reload
else
	printf 'dm-switch: swupload is not built, and not installed: make tools builds it\n' >&2
fi
update "$release"
printf 'dm-switch: installed for %s: load it with modprobe dm-switch\n' "$release"
