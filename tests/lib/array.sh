# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# A storage array and its host, both in the guest: members that serve the same volume, each an iSCSI target of the
# kernel's (LIO) with two portals; the paths to these, sessions of open-iscsi; and a multipath device for each member.
# A test that sources this file needs "# image: array".  Members count from 0, the paths to a member from 1.
#
#   start_array MEMBERS DISK       make members that serve the disk, and log in to them
#   stop_array                     check the log, and undo that, as a guest's last step; neither multipath devices nor the
#                                  module may be left
#   make_multipaths SECTORS        make /dev/mapper/memberN for each member; it prefers the member's own paths
#   remove_multipaths              remove them
#   connect 0|1 MEMBER PATH        disable a path at the target, or enable it
#   reinstate MEMBER PATH          wait until a path has its session, and let the multipath device use it again
#   is_failed MEMBER PATH          succeed if the member's multipath device has failed the path
#   traffic_of DEVICE SECTOR       read 128 sectors four times; print the sectors that came over each path
#   start_load DEVICE              write and verify 1 MiB again and again, in the background
#   load_works                     wait for two more rounds of that load; fail if it had an error
#   stop_load                      stop it

lio=/sys/kernel/config/target/iscsi
volume=/sys/kernel/config/target/core/iblock_0/volume

# target MEMBER: print the name of its target.
target() {
	echo "iqn.2011-10.test.array:member$1"
}

# portal MEMBER PATH: print the address and port of a path.
portal() {
	echo "127.0.$1.$2:3260"
}

# each_path COMMAND...: run a command for each path, with the numbers of the member and of the path.
each_path() {
	for path_member in $members; do
		for path in 1 2; do
			"$@" "$path_member" "$path"
		done
	done
}

# serve MEMBER PATH: serve the volume at a portal.
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

connect() {
	echo "$1" >"$lio/$(target "$2")/tpgt_$3/enable"
}

# withdraw MEMBER PATH: undo serve.
withdraw() {
	group=$lio/$(target "$1")/tpgt_$2
	connect 0 "$1" "$2"
	rm "$group/lun/lun_0/volume"
	rmdir "$group/lun/lun_0" "$group/np/$(portal "$1" "$2")" "$group"
}

# log_in MEMBER PATH: start the session of a path.
log_in() {
	for step in "-o new" --login; do
		# shellcheck disable=SC2086 # words
		iscsiadm -m node $step -T "$(target "$1")" -p "$(portal "$1" "$2"),$2"
	done
}

# find_disk MEMBER PATH: link /dev/memberN-pathN to the disk of the path's session.
find_disk() {
	for session in /sys/class/iscsi_session/*; do
		if [ "$(cat "$session/targetname") $(cat "$session/tpgt")" = "$(target "$1") $2" ]; then
			disk=$(ls "$session"/device/target*/*/block) && ln -s "$disk" "/dev/member$1-path$2"
			return
		fi
	done 2>/dev/null
	return 1
}

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
	# I/O fails once its session is gone for a second.
	cat >/etc/iscsi/iscsid.conf <<'END'
node.startup = manual
node.session.timeo.replacement_timeout = 1
node.conn[0].timeo.noop_out_interval = 0
END
	iscsid
	each_path log_in >/tmp/iscsi.log
	each_path until_true find_disk
}

# Some kernels complain while the disks of the sessions go: 6.12 about a work queue that is flushed from another, and
# lockdep about the removal of a multipath device's paths after writeback to it, since the locks of both disks are in one
# class.  So those lines are not checked.
stop_array() {
	check_log
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
	begin_log
}

# add_path MEMBER OWNER PATH: add OWNER's path to the arguments of MEMBER's multipath device, in own or in others.
add_path() {
	if [ "$1" = "$2" ]; then
		own="$own /dev/member$2-path$3 1"
	else
		others="$others /dev/member$2-path$3 1"
	fi
}

make_multipaths() {
	for member in $members; do
		own='' others=''
		each_path add_path "$member"
		dmsetup create "member$member" --table "0 $1 multipath 0 0 2 1 \
round-robin 0 2 1 $own round-robin 0 $(($(echo "$members" | wc -l) * 2 - 2)) 1 $others"
	done
}

remove_multipaths() {
	for member in $members; do
		dmsetup remove "member$member"
	done
}

# path_disk MEMBER PATH: print the directory of its disk in sysfs.
path_disk() {
	echo "/sys/block/$(readlink "/dev/member$1-path$2")"
}

# is_running MEMBER PATH: succeed if the path has its session.
is_running() {
	[ "$(cat "$(path_disk "$1" "$2")/device/state")" = running ]
}

# multipathd does the same.
reinstate() {
	until_true is_running "$1" "$2"
	dmsetup message "member$1" 0 reinstate_path "$(cat "$(path_disk "$1" "$2")/dev")"
}

is_failed() {
	dmsetup status "member$1" | grep -q " $(cat "$(path_disk "$1" "$2")/dev") F "
}

# sectors_read MEMBER PATH: print how many came over the path.
sectors_read() {
	awk '{ print $3 }' "$(path_disk "$1" "$2")/stat"
}

# traffic: print the sectors that came over each path.
traffic() {
	each_path sectors_read | paste -s -d ' '
}

traffic_of() {
	traffic_before=$(traffic)
	for _ in 1 2 3 4; do
		read_sectors "$1" "$2" 128
	done
	rise "$traffic_before" "$(traffic)"
}

start_load() {
	rm -f /tmp/stop
	: >>/tmp/errors
	: >>/tmp/rounds
	while [ ! -e /tmp/stop ]; do
		fio --name=load "--filename=$1" --rw=randwrite --bs=16k --io_size=1m --randrepeat=0 --direct=1 \
			--verify=crc32c --verify_fatal=1 >/tmp/round 2>&1 || {
			echo "fio: exit status $?"
			cat /tmp/round
		} >>/tmp/errors
		echo round >>/tmp/rounds
	done &
	load_job=$!
}

# has_rounds COUNT: succeed if the load has done this many rounds.
has_rounds() {
	[ "$(wc -l </tmp/rounds)" -ge "$1" ]
}

load_works() {
	until_true has_rounds $(($(wc -l </tmp/rounds) + 2))
	expect "errors of the load" "" "$(cat /tmp/errors)"
}

stop_load() {
	touch /tmp/stop
	wait "$load_job"
}
