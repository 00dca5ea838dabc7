# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# SCSI disks in memory.

# scsi_disks COUNT [PARAMETER...]: make /dev/sda and on, 8 MiB each, with more parameters for their driver.
scsi_disks() {
	scsi_count=$1
	shift
	modprobe sd_mod
	modprobe scsi_debug "add_host=$scsi_count" per_host_store=1 dev_size_mb=8 ndelay=1 "$@"
	scsi_wait=100
	while [ "$(find /dev -name 'sd?' | wc -l)" -lt "$scsi_count" ]; do
		[ "$scsi_wait" -gt 0 ] || fail "no $scsi_count SCSI disks"
		scsi_wait=$((scsi_wait - 1))
		sleep 0.1
	done
}
