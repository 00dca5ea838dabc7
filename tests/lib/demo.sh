# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Shows a switch, in the guest.

. /t/lib/show.sh

# owners: print the runs of pages with the same owner; standard input has a line that begins with "member N" for each page.
owners() {
	cut -c 1-8 | uniq -c | awk '{
		printf "  pages %6d to %6d: %s %s\n", page, page + $1 - 1, $2, $3
		page += $1
	}'
}

pages=120000 # of a sector
megabytes=59

title "dm-switch on $(uname -sr)"
modprobe dm-mod
insmod /t/dm-switch.ko
cat <<END
Four block devices stand for the members of a storage array.  Every page of 512
bytes on member N says "member N", so that what is read tells where it came from.
END
modprobe brd rd_nr=4 rd_size=$((megabytes * 1024))
for member in 0 1 2 3; do
	yes "$(printf '%-511s' "member $member")" |
		dd of=/dev/ram$member bs=1M count=$megabytes iflag=fullblock 2>/dev/null &
done
wait

title "A volume of $pages pages over them"
show "dmsetup create volume --table '0 $pages switch 4 1 \
/dev/ram0 0 /dev/ram1 0 /dev/ram2 0 /dev/ram3 0'"
show "dmsetup table volume"
show "dmsetup status volume"
echo
echo "There is no page table yet, so member 0 gets everything:"
show "dd if=/dev/mapper/volume bs=1M count=8 iflag=direct 2>/dev/null | owners"

title "The page table, uploaded over generic netlink"
show "grep -v '^#' /t/lib/members.hex | head -n 3 | cut -c 1-60"
show "swupload -v -b 8 -u 2011,7003 volume /t/lib/members.hex"
show "dmsetup table volume"
show "dmsetup status volume"

title "Which member serves which region now"
show "dd if=/dev/mapper/volume bs=1M iflag=direct 2>/dev/null | cut -c 1-8 >/tmp/served"
show "owners </tmp/served | head -n 12"
echo "  ..."
show "owners </tmp/served | tail -n 4"
echo
grep -v '^#' /t/lib/members.hex | tr ' ' '\n' | awk -F '*' '{
	count = NF > 1 ? $2 : 1
	while (count--)
		print "member " $1
}' >/tmp/wanted
echo "Pages of the table, and pages that each member served:"
for member in 0 1 2 3; do
	printf '  member %d: %6d  %6d\n' $member "$(grep -c "member $member" /tmp/wanted)" \
		"$(grep -c "member $member" /tmp/served)"
done
cmp /tmp/wanted /tmp/served
echo "All $(wc -l </tmp/served) pages came from the member that the table names."

title "Status afterwards: the I/Os that the page table had a member for, and those without"
show "dmsetup status volume"

title "An upload that is refused changes nothing"
show_refused "swupload -b 8 -t 2000000 volume /t/lib/members.hex"
show "dmsetup status volume"

dmsetup remove volume
rmmod dm_switch
