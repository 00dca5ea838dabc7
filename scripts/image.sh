#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# guest.sh calls this, in the build root.
#
# image.sh MODULES PROGRAMS MACHINE DIR: make the guest's file system, DIR/base.cpio; the same with what tests of storage
# need besides, DIR/storage.cpio; that with a storage array's parts, DIR/array.cpio; and a disk with the
# names of sectors, DIR/names.img.
#
# Programs are from the directory PROGRAMS, which is empty for the build root's own.  MACHINE is what they and the
# kernel are for, x86_64 or aarch64.  It may be another one than this: nothing of them is run here.
#
# The file system is busybox, the programs below (busybox has some of them, but less able, and its
# shell takes no others than its own), and of the kernel's modules those below.

set -euo pipefail

modules=$1 programs=$2 target=$3-linux-gnu dir=$4
release=$(basename "$modules")
image=$dir/image

# find_file NAME DIR...: which of the directories below PROGRAMS has it, and NAME.
find_file() {
	local name=$1 dir
	shift
	for dir; do
		if [ -e "$programs$dir/$name" ]; then
			printf '%s\n' "$dir/$name"
			return
		fi
	done
	printf 'image.sh: there is no %s\n' "$name" >&2
	return 1
}

# copy FILE: into the image, at its own path, following links, with the libraries that it needs.
copy() {
	local header dirs libraries name file
	[ ! -e "$image/$1" ] || return 0
	mkdir -p "$image/$(dirname "$1")"
	cp -L "$programs$1" "$image/$1"
	header=$("$target-readelf" -Wdl "$programs$1")
	name=$(sed -n 's/.*program interpreter: \(.*\)\]/\1/p' <<<"$header")
	[ -z "$name" ] || copy "/usr$name"
	mapfile -t dirs < <(sed -n 's/.*(RUNPATH).*\[\(.*\)\]/\1/p' <<<"$header" | tr : '\n')
	mapfile -t libraries < <(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$header")
	for name in "${libraries[@]}"; do
		file=$(find_file "$name" "/usr/lib/$target" "${dirs[@]}")
		copy "$file"
	done
}

# add_programs PROGRAM...: with their libraries, in the place of busybox's.
add_programs() {
	local program
	for program; do
		program=$(find_file "$program" /usr/sbin /usr/bin)
		rm -f "$image/usr/bin/$(basename "$program")"
		copy "$program"
	done
}

# unpacked FILE: a module's content, whether it is packed, as Debian's are, or not.
unpacked() {
	case $1 in
	*.xz) xz -dc "$1" ;;
	*) cat "$1" ;;
	esac
}

# needed_by MODULE: what modprobe does to load it.
needed_by() {
	modprobe -d "${modules%/lib/modules/*}" -S "$release" --show-depends "$1"
}

# add_modules MODULE...: with those that they need.
add_modules() {
	local module file
	for module; do
		needed_by "$module"
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
		unpacked "$file" >"$image/lib/modules/$release/$(basename "$file" .xz)"
	done
	depmod -b "$image" "$release"
}

# add_modules_if_any MODULE...: the same for those that only some kernels have.
add_modules_if_any() {
	local module
	for module; do
		if needed_by "$module" >/dev/null 2>&1; then
			add_modules "$module"
		fi
	done
}

# archive FILE: what is in the image.
archive() {
	(cd "$image" && find . | sort | cpio --quiet -o -H newc) >"$1"
}

mkdir -p "$image"/{dev,proc,sys,tmp,usr/bin,usr/sbin,usr/lib64,usr/lib/modules/"$release"}
ln -s usr/bin usr/sbin usr/lib usr/lib64 "$image"
cp "$programs/usr/bin/busybox" "$image/usr/bin"
for applet in $(busybox --list | grep -vx busybox); do
	ln -s busybox "$image/usr/bin/$applet"
done
add_programs blkdiscard dash dd dmsetup flock od setpriv socat xxd
add_modules brd dm-mod dm-snapshot dm-zero loop null_blk sd_mod virtio_blk
# Debian's kernels for arm64 have no scsi_debug, and the second one is built into most.
add_modules_if_any scsi_debug virtio_pci
# The kernel's own target, for the tests under another name, for module names are unique too.  The
# copy leaves the signature behind, which would not hold any more.
unpacked "$modules"/kernel/drivers/md/dm-switch.ko* | sed 's/dm_switch/dm_intree/g' >"$dir/intree.ko"
"$target-objcopy" "$dir/intree.ko" "$image/lib/modules/intree.ko"
archive "$dir/base.cpio"
add_programs e2fsck fio mkfs.ext4 mkfs.xfs xfs_io xfs_repair
# The debug kernel has no file systems.  ext4, xfs and iSCSI ask for the last one by its algorithm's name.
add_modules_if_any ext4 xfs crc32c_generic
archive "$dir/storage.cpio"
add_programs iscsiadm iscsid
add_modules dm-multipath dm-round-robin iscsi_target_mod iscsi_tcp target_core_iblock
archive "$dir/array.cpio"
rm -rf "$image" "$dir/intree.ko"

# The names of the sectors of eight disks of 64 MiB: DISK/SECTOR, and spaces.
awk 'BEGIN {
	for (disk = 0; disk < 8; disk++)
		for (sector = 0; sector < 131072; sector++)
			printf "%-511s\n", disk "/" sector
}' >"$dir/names.img"
