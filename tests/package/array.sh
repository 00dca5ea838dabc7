#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Serves the array of docs/guide.md, in the kernel (LIO): two members, each an iSCSI target with a portal in each of
# two networks.  Each has a disk of 64 GiB, a sparse file, and also serves the other's disk, as paths that are not
# preferred.

set -eu
lio=/sys/kernel/config/target/iscsi
disks=/sys/kernel/config/target/core/fileio_0

modprobe iscsi_target_mod
modprobe target_core_file
mkdir -p /var/target /var/lib/array $lio
for member in 0 1; do
	disk=$disks/member$member
	mkdir -p "$disk"
	truncate -s 64G "/var/lib/array/member$member"
	echo "fd_dev_name=/var/lib/array/member$member,fd_dev_size=$((64 << 30)),fd_buffered_io=1" >"$disk/control"
	echo "1d0000000000000000000000$member" >"$disk/wwn/vpd_unit_serial"
	echo 1 >"$disk/enable"
	mkdir "$disk/alua/passed_on"
	echo 1 >"$disk/alua/passed_on/tg_pt_gp_id"
	# Active/non-optimized.
	echo 1 >"$disk/alua/passed_on/alua_access_state"
done
for member in 0 1; do
	group=$lio/iqn.2011-10.example.array:member$member/tpgt_1
	mkdir -p "$group"
	for address in 10.1.0.1$member 10.2.0.1$member; do
		ip address add "$address/32" dev lo
		mkdir "$group/np/$address:3260"
	done
	for disk in 0 1; do
		lun=$group/lun/lun_$disk
		mkdir "$lun"
		ln -s "$disks/member$disk" "$lun/disk"
		[ $disk -eq $member ] || echo passed_on >"$lun/alua_tg_pt_gp"
	done
	echo 0 >"$group/attrib/authentication"
	echo 1 >"$group/attrib/generate_node_acls"
	echo 0 >"$group/attrib/demo_mode_write_protect"
	echo 1 >"$group/enable"
done
