# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# A storage array as a host has it: members that all serve the same volume, each of them an iSCSI target
# with two portals; the sessions to these, the paths; and a multipath device for each member.  Both ends
# are in the guest: the kernel's target (LIO), and open-iscsi.

lio=/sys/kernel/config/target/iscsi
volume=/sys/kernel/config/target/core/iblock_0/volume

# target MEMBER: its target's name.
target() {
	echo "iqn.2011-10.test.array:member$1"
}

# portal MEMBER PATH: where a path leads to.
portal() {
	echo "127.0.$1.$2:3260"
}

# each_path COMMAND...: run a command for each path, with the member's number and the path's.
each_path() {
	for path_member in $members; do
		for path in 1 2; do
			"$@" "$path_member" "$path"
		done
	done
}

# serve MEMBER PATH: serve the volume there.
serve() {
	group=$lio/$(target "$1")/tpgt_$2
	mkdir -p "$group"
	mkdir "$group/np/$(portal "$1" "$2")" "$group/lun/lun_0"
	ln -s "$volume" "$group/lun/lun_0/volume"
	echo 0 >"$group/attrib/authentication"
	echo 1 >"$group/attrib/generate_node_acls"
	echo 0 >"$group/attrib/demo_mode_write_protect"
	connect 1 "$1" "$2"
}

# connect 0|1 MEMBER PATH: cut a path off, or let it come back.
connect() {
	echo "$1" >"$lio/$(target "$2")/tpgt_$3/enable"
}

# withdraw MEMBER PATH: serve the volume there no more.
withdraw() {
	group=$lio/$(target "$1")/tpgt_$2
	connect 0 "$1" "$2"
	rm "$group/lun/lun_0/volume"
	rmdir "$group/lun/lun_0" "$group/np/$(portal "$1" "$2")" "$group"
}

# log_in MEMBER PATH
log_in() {
	for step in "-o new" --login; do
		# shellcheck disable=SC2086 # words
		iscsiadm -m node $step -T "$(target "$1")" -p "$(portal "$1" "$2"),$2"
	done
}

# find_disk MEMBER PATH: link /dev/memberN-pathN to the disk that the path's session has.
find_disk() {
	for session in /sys/class/iscsi_session/*; do
		if [ "$(cat "$session/targetname") $(cat "$session/tpgt")" = "$(target "$1") $2" ]; then
			disk=$(ls "$session"/device/target*/*/block) && ln -s "$disk" "/dev/member$1-path$2"
			return
		fi
	done 2>/dev/null
	return 1
}

# start_array MEMBERS DISK: have members that serve a disk, and log in to them.
start_array() {
	members=$(seq 0 $(($1 - 1)))
	modprobe iscsi_target_mod
	modprobe target_core_iblock
	mount -t configfs config /sys/kernel/config
	mkdir -p /var/target $lio $volume
	echo "udev_path=$2" >$volume/control
	echo 1 >$volume/enable
	each_path serve

	modprobe dm-multipath
	modprobe dm-round-robin
	modprobe iscsi_tcp
	modprobe sd_mod
	ip link set lo up
	mkdir -p /etc/iscsi /run/lock/iscsi /var/lib/iscsi
	echo "InitiatorName=iqn.2011-10.test.host" >/etc/iscsi/initiatorname.iscsi
	# When a session was away for a second, its I/O fails.
	cat >/etc/iscsi/iscsid.conf <<'END'
node.startup = manual
node.session.timeo.replacement_timeout = 1
node.conn[0].timeo.noop_out_interval = 0
END
	iscsid
	each_path log_in >/tmp/iscsi.log
	each_path until_true find_disk
}

# stop_array: with no multipath device left.
stop_array() {
	iscsiadm -m node -U all >>/tmp/iscsi.log
	iscsiadm -k 0
	rm -r /etc/iscsi /run/lock/iscsi /var/lib/iscsi /dev/member*-path*
	each_path withdraw
	for member in $members; do
		rmdir "$lio/$(target "$member")"
	done
	rmdir $lio $volume ${volume%/*}
	umount /sys/kernel/config
	rm -r /var/target
}

# add_path MEMBER OWNER PATH: into own or others, as arguments of the multipath device of a member.
add_path() {
	if [ "$1" = "$2" ]; then
		own="$own /dev/member$2-path$3 1"
	else
		others="$others /dev/member$2-path$3 1"
	fi
}

# make_multipaths SECTORS: make /dev/mapper/memberN for each member, which prefers its own two paths to those
# of the others.
make_multipaths() {
	for member in $members; do
		own='' others=''
		each_path add_path "$member"
		dmsetup create "member$member" --table "0 $1 multipath 0 0 2 1 \
round-robin 0 2 1 $own round-robin 0 $(($(echo "$members" | wc -l) * 2 - 2)) 1 $others"
	done
}

# remove_multipaths
remove_multipaths() {
	for member in $members; do
		dmsetup remove "member$member"
	done
}

# path_disk MEMBER PATH: where sysfs has its disk.
path_disk() {
	echo "/sys/block/$(readlink "/dev/member$1-path$2")"
}

# is_running MEMBER PATH: the path's session is there.
is_running() {
	[ "$(cat "$(path_disk "$1" "$2")/device/state")" = running ]
}

# reinstate MEMBER PATH: have the member's multipath device use the path again, as multipathd does.
reinstate() {
	until_true is_running "$1" "$2"
	dmsetup message "member$1" 0 reinstate_path "$(cat "$(path_disk "$1" "$2")/dev")"
}

# is_failed MEMBER PATH: the member's multipath device does not use the path.
is_failed() {
	dmsetup status "member$1" | grep -q " $(cat "$(path_disk "$1" "$2")/dev") F "
}

# sectors_read MEMBER PATH: how many came over the path.
sectors_read() {
	awk '{ print $3 }' "$(path_disk "$1" "$2")/stat"
}

# traffic: the sectors that came over each path.
traffic() {
	each_path sectors_read | paste -s -d ' '
}

# traffic_of DEVICE SECTOR: the sectors that come over each path when 128 from there on are read four times.
traffic_of() {
	traffic_before=$(traffic)
	for _ in 1 2 3 4; do
		read_sectors "$1" "$2" 128
	done
	rise "$traffic_before" "$(traffic)"
}

# start_load DEVICE: write and read back 1 MiB, in random places, again and again.
start_load() {
	rm -f /tmp/stop
	: >>/tmp/errors
	: >>/tmp/rounds
	while [ ! -e /tmp/stop ]; do
		fio --name=load "--filename=$1" --rw=randwrite --bs=16k --io_size=1m --randrepeat=0 --direct=1 \
			--verify=crc32c --verify_fatal=1 >/tmp/round 2>&1 || cat /tmp/round >>/tmp/errors
		echo round >>/tmp/rounds
	done &
	load_job=$!
}

# has_rounds COUNT: the load went round so often.
has_rounds() {
	[ "$(wc -l </tmp/rounds)" -ge "$1" ]
}

# works: the load, without an error.
works() {
	until_true has_rounds $(($(wc -l </tmp/rounds) + 2))
	expect "errors" "" "$(cat /tmp/errors)"
}

# stop_load
stop_load() {
	touch /tmp/stop
	wait "$load_job"
}
