#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# image.sh MODULES DIR: make the guest's file system, DIR/base.cpio; the same with what tests of storage
# need besides, DIR/storage.cpio; that with a storage array's parts, DIR/array.cpio; and a disk with the
# names of sectors, DIR/names.img.  Runs in the build root.
#
# The file system is busybox, the programs below (busybox has some of them, but less able, and its
# shell takes no others than its own), and of the kernel's modules those below.

set -euo pipefail

modules=$1 dir=$2
release=$(basename "$modules")
image=$dir/image

# copy FILE: into the image, at its own path, following links.
copy() {
	mkdir -p "$image/$(dirname "$1")"
	cp -L "$1" "$image/$1"
}

# add_programs PROGRAM...: with their libraries, in the place of busybox's.
add_programs() {
	local program library
	for program; do
		program=$(command -v "$program")
		rm -f "$image/usr/bin/$(basename "$program")"
		copy "$program"
		for library in $(ldd "$program" | grep -o '/[^ ]*'); do
			copy "$library"
		done
	done
}

# unpacked FILE: a module's content, whether it is packed, as Debian's are, or not.
unpacked() {
	case $1 in
	*.xz) xz -dc "$1" ;;
	*) cat "$1" ;;
	esac
}

# add_modules MODULE...: with those that they need.
add_modules() {
	local module file
	for module; do
		modprobe -d "${modules%/lib/modules/*}" -S "$release" --show-depends "$module"
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
		unpacked "$file" >"$image/lib/modules/$release/$(basename "$file" .xz)"
	done
	depmod -b "$image" "$release"
}

# archive FILE: what is in the image.
archive() {
	(cd "$image" && find . | sort | cpio --quiet -o -H newc) >"$1"
}

mkdir -p "$image"/{dev,proc,sys,tmp,usr/bin,usr/sbin,usr/lib64,usr/lib/modules/"$release"}
ln -s usr/bin usr/sbin usr/lib usr/lib64 "$image"
cp /usr/bin/busybox "$image/usr/bin"
for applet in $(busybox --list | grep -vx busybox); do
	ln -s busybox "$image/usr/bin/$applet"
done
add_programs blkdiscard dash dd dmsetup od setpriv socat xxd
add_modules brd dm-mod dm-snapshot dm-zero loop null_blk scsi_debug sd_mod virtio_blk
# The kernel's own target, for the tests under another name, for module names are unique too.  The
# copy leaves the signature behind, which would not hold any more.
unpacked "$modules"/kernel/drivers/md/dm-switch.ko* | sed 's/dm_switch/dm_intree/g' >"$dir/intree.ko"
objcopy "$dir/intree.ko" "$image/lib/modules/intree.ko"
archive "$dir/base.cpio"
add_programs e2fsck fio mkfs.ext4 mkfs.xfs xfs_io xfs_repair
add_modules ext4 xfs
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
