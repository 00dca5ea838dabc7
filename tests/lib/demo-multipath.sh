# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Shows a switch over multipath devices, in the guest.

. /t/lib/test.sh
. /t/lib/switch.sh
. /t/lib/array.sh
. /t/lib/show.sh

page_size=30720
sectors=$((page_size * 6))

# show_traffic: read from each region, and print the sectors that came over each path.
show_traffic() {
	echo "Four times 64 KiB of each region; sectors that came over each path:"
	echo
	echo "              member 0      member 1      member 2"
	for region in 0 1 2 3 4 5; do
		numbers=$(traffic_of /dev/mapper/volume $((region * page_size + 8000)))
		# shellcheck disable=SC2086 # six numbers
		printf '  region %d  %5d %5d   %5d %5d   %5d %5d\n' $region $numbers
	done
}

# show_load: stop the load, and print how it went.
show_load() {
	load_works
	stop_load
	echo "fio went on: $(wc -l </tmp/rounds) rounds so far, errors: $(wc -l </tmp/errors)"
}

title "dm-switch over dm-multipath, on $(uname -sr)"
load
blank_disks 1 $sectors
cat <<END
A storage array of three members, which all serve one volume: iSCSI targets of the kernel's, with
two portals each, on the loopback interface.  The host, with open-iscsi, is logged in to all six.
END
start_array 3 /dev/ram0
show "iscsiadm -m session | sort"

title "The lower tier: a multipath device for each member"
cat <<END
Each prefers the member's own two paths; those of the other members come next.
END
make_multipaths $sectors
show "dmsetup table --target multipath"
show "ls -l /dev/member*-path* | awk '{ print \$9, \$10, \$11 }'"

title "The upper tier: a switch over the members, with pages of 15 MiB"
show "dmsetup create volume --table '0 $sectors switch 3 $page_size \
/dev/mapper/member0 0 /dev/mapper/member1 0 /dev/mapper/member2 0'"
show "echo 0 1 2 0 1 2 | swupload -v volume -"
show_traffic

title "A path fails, while fio writes to the volume and verifies what it wrote"
start_load /dev/mapper/volume
load_works
echo "The array drops the first path to member 0."
connect 0 0 1
until_true is_failed 0 1
show_load
show "dmsetup status member0"
show_traffic

title "The member's other path fails, too: the other members take over"
start_load /dev/mapper/volume
load_works
connect 0 0 2
until_true is_failed 0 2
show_load
show "dmsetup status member0"
show_traffic

title "An upload moves the member's regions to others, at once"
show "echo 1 1 2 2 1 2 | swupload volume -"
show_traffic

title "The member comes back, and gets its regions again, while fio goes on"
start_load /dev/mapper/volume
load_works
for path in 1 2; do
	connect 1 0 $path
	reinstate 0 $path
done
dmsetup message member0 0 switch_group 1
show "echo 0 1 2 0 1 2 | swupload volume -"
show_load
show "dmsetup status member0"
show_traffic
title "Status: the I/Os that the page table had a member for, and those without"
show "dmsetup status volume"

dmsetup remove volume
remove_multipaths
unload
stop_array
