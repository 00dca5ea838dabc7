#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-package.sh: have a Debian 13 with a kernel of the oldest supported series, install the packages there
# with apt, boot it, and use them; upgrade to a kernel of the newest series, and the same; purge them.  The
# commands of README.md and docs/guide.md are among what is done, as they stand there.  The last line is "N passed,
# N failed".  A step that fails is the last one.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/series.sh"
cd "$top"
. tests/package/document.sh

# What the machine has besides its kernels and what the packages depend on: what boots, and what the tests use.
machine_packages=(
	ca-certificates e2fsprogs initramfs-tools systemd-sysv udev dmsetup
	libnl-genl-3-dev libnl-utils python3-jsonschema python3-pyroute2 python3-yaml
	iproute2 multipath-tools open-iscsi
)

# Seconds after which a machine that was booted hangs: by far more than it takes.
limit=1800

# in_machine DIR COMMAND [ARGUMENT...]: run a command in the machine whose root DIR is.
in_machine() {
	local dir=$1
	shift
	bwrap --bind "$dir" / --proc /proc --dev /dev --tmpfs /run --bind "$cache" /mnt \
		--ro-bind-try /etc/resolv.conf /etc/resolv.conf --cap-add ALL \
		--clearenv --setenv PATH /usr/sbin:/usr/bin --setenv LC_ALL C.UTF-8 \
		--setenv DEBIAN_FRONTEND noninteractive --die-with-parent "$@"
}

# apt DIR ARGUMENT...
apt() {
	local dir=$1
	shift
	in_machine "$dir" apt-get -y "$@"
}

# install_kernel DIR RELEASE [ARGUMENT...]: as one does from the backports.
install_kernel() {
	local dir=$1 release=$2
	shift 2
	apt "$dir" -t "$suite-backports" install "linux-image-$release" "linux-headers-$release" "$@"
}

# newest DIR SERIES: the newest release of a series that the archive has headers for.
newest() {
	in_machine "$1" apt-cache --names-only search "^linux-headers-${2//./\\.}\.[0-9]+\+deb[0-9]+-amd64\$" |
		sed 's/^linux-headers-\([^ ]*\).*/\1/' | sort -V | tail -n 1
}

# make_machine DEPENDENCIES DIR: make a machine with the older kernel, on which the packages can be installed.
# What an upgrade to the newer one takes is downloaded.
make_machine() {
	local dependencies=$1 dir=$2 old new
	make_root "${machine_packages[@]}" "$dir"
	# Small initial file systems.
	echo MODULES=list >"$dir/etc/initramfs-tools/conf.d/modules"
	printf '%s\n' ext4 virtio_blk virtio_pci >>"$dir/etc/initramfs-tools/modules"
	apt "$dir" update
	old=$(newest "$dir" "${series[0]}")
	new=$(newest "$dir" "${series[-1]}")
	# An upgrade takes the newest linux-libc-dev.
	install_kernel "$dir" "$old" "linux-source-${series[0]}" linux-libc-dev
	apt "$dir" satisfy "$dependencies"
	mkdir "$dir/opt/linux"
	tar -xf "$dir/usr/src/linux-source-${series[0]}.tar.xz" -C "$dir/opt/linux" --strip-components 1 \
		--wildcards '*/tools/net/ynl' '*/Documentation/netlink'
	apt "$dir" clean
	install_kernel "$dir" "$new" --download-only
	printf '%s\n' "$old" "$new" >"$dir/kernels"
}

# run_commands DOCUMENT KIND: run the commands of this kind of a document (see tests/package/document.sh) in the
# machine, in /opt.
run_commands() {
	local parts block
	parts=$(mktemp -d "$work/document.XXXXXX")
	blocks "$1" "$parts"
	for block in "$parts"/*."sh-$2"; do
		in_machine "$dir" --chdir /opt bash -e -c "$(<"$block")"
	done
}

# files: what is on the machine, less what apt, dpkg and the log keep of what was installed before, and less
# the key that dkms makes at its first build and keeps.
files() {
	(
		cd "$dir"
		find . \( -path ./var/log -o -path ./var/cache -o -path ./var/lib/apt -o -path './var/lib/dkms/mok.*' \
			-o -path './var/lib/dpkg/*-old' -o -path ./var/lib/dpkg/status \) -prune -o \
			\( -type f -printf '%p %m %U:%G %s\n' -o -printf '%p %y %m %U:%G %l\n' \) | sort
	)
}

# expect WHAT WANTED GOT
expect() {
	if [ "$2" != "$3" ]; then
		printf '%s:\n  wanted: %s\n  got:    %s\n' "$@"
		exit 1
	fi
}

# installed RELEASE: dkms has the module installed for a kernel, and modprobe takes it.
installed() {
	expect "dkms on $1" "dm-switch/$version, $1, x86_64: installed (Original modules exist)" \
		"$(in_machine "$dir" dkms status -m dm-switch -k "$1")"
	expect "the module for $1" "/lib/modules/$1/updates/dkms/dm-switch.ko.xz" \
		"$(in_machine "$dir" modinfo -k "$1" -F filename dm-switch)"
	expect "its version" "$version" "$(in_machine "$dir" modinfo -k "$1" -F version dm-switch)"
}

install() {
	cp ./dm-switch-*_"$version"_*.deb "$dir/opt"
	run_commands README.md install
	rm "$dir"/opt/*.deb
	installed "$old"
	expect "swupload" "swupload $version" "$(in_machine "$dir" swupload --version)"
}

# A kernel that is installed again brings its own module back, and an administrator may prefer those.
prefer() {
	local own=lib/modules/$old/kernel/drivers/md/dm-switch.ko.xz
	cp "$dir/var/lib/dkms/dm-switch/original_module/$old/x86_64/dm-switch.ko.xz" "$dir/$own"
	echo "search built-in updates" >"$dir/etc/depmod.d/search.conf"
	in_machine "$dir" depmod "$old"
	installed "$old"
	rm "$dir/$own" "$dir/etc/depmod.d/search.conf"
	in_machine "$dir" depmod "$old"
}

upgrade() {
	install_kernel "$dir" "$new"
	installed "$old"
	installed "$new"
}

# make_disk RELEASE: make a disk with the machine on it, and the tests.
make_disk() {
	cp -r tests/package "$dir/t"
	mkdir "$dir/t/lib"
	cp tests/lib/{test,run-test}.sh "$dir/t/lib"
	cp README.md docs/guide.md "$dir/t"
	in_machine "$dir" cc -Wall -Wextra -Werror -I /usr/include/libnl3 -o /t/upload /t/upload.c -l nl-genl-3 -l nl-3
	rm -f "$work/disk"
	truncate -s 8G "$work/disk"
	in_machine "$dir" mkfs.ext4 -q -d "/mnt/${dir#"$cache/"}" "/mnt/${work#"$cache/"}/disk"
	rm -r "$dir/t"
}

# boot RELEASE: boot the machine on the disk with a kernel, and run the tests; boot it again where one of them says
# so.
boot() {
	: >"$work/output"
	until grep -qx "dm-switch guest: end" "$work/output"; do
		emulate "$work/boot" "$limit" -smp 2 -m 1500 \
			-kernel "$dir/boot/vmlinuz-$1" -initrd "$dir/boot/initrd.img-$1" \
			-drive "file=$work/disk,format=raw,if=virtio" \
			-append "root=/dev/vda rw console=ttyS0 panic=-1 oops=panic log_buf_len=4M systemd.run=/t/guest.sh" || :
		cat "$work/boot" >>"$work/output"
		if ! grep -qx "dm-switch guest: \(end\|reboot\)" "$work/boot"; then
			tail -n 40 "$work/boot.log" "$work/output"
			return 1
		fi
	done
}

# refuses RELEASE SETTING TEXT: for a kernel with this setting dkms makes no module, and says why with the text;
# the installation of the kernel goes on, and dkms keeps nothing.
refuses() {
	local release=$1 said
	mkdir -p "$dir/lib/modules/$release/build/include"
	echo "$2" >"$dir/lib/modules/$release/build/.config"
	said=$(in_machine "$dir" /etc/kernel/postinst.d/dkms "$release" 2>&1)
	echo "$said"
	rm -r "$dir/lib/modules/$release"
	tr -s '\n ' '  ' <<<"$said" | grep -qF "dm-switch is not built for the kernel $release: $3"
	[ ! -e "$dir/var/lib/dkms/dm-switch/$version/$release" ]
	[ ! -e "$dir/var/lib/dkms/dm-switch/$version/build/kernel" ]
}

refuse() {
	local release
	refuses 6.12.1+deb13-amd64 "" "this version of the module is for the series ${series[*]}."
	release=${series[-1]}.99+deb13-amd64
	refuses "$release" "# CONFIG_RUST is not set" "that kernel has no support for Rust (CONFIG_RUST)"
	refuses "$release" "CONFIG_RUST=y
CONFIG_RUSTC_VERSION_TEXT=\"rustc 1.99.0\"" \
		"the Rust compiler has to be the one that the kernel was built with, rustc 1.99.0,"
	refuses "$release" "CONFIG_RUST=y
CONFIG_RUSTC_VERSION_TEXT=\"$(in_machine "$dir" rustc --version)\"" \
		"its headers have no Rust metadata and belong to no package linux-headers-$release"
}

# A kernel whose source has left the archive is installed all the same; when it is there again, dkms is told so.
refuse_without_source() {
	local said
	in_machine "$dir" dkms unbuild "dm-switch/$version" -k "$new"
	mv "$dir/etc/apt/sources.list" "$dir/etc/apt/sources"
	apt "$dir" update
	said=$(in_machine "$dir" /etc/kernel/postinst.d/dkms "$new" 2>&1)
	echo "$said"
	mv "$dir/etc/apt/sources" "$dir/etc/apt/sources.list"
	tr -s '\n ' '  ' <<<"$said" | grep -qF "the package linux-source-${series[-1]}, version"
}

purge() {
	run_commands README.md purge
	apt "$dir" purge "linux-*-$new" "linux-*-${new%-amd64}*"
	files >"$work/after"
	diff "$work/before" "$work/after"
}

passed=0

# end_failed: end the run at a step that failed.
end_failed() {
	printf '%d passed, 1 failed\n' "$passed"
	exit 1
}

# check TEXT COMMAND [ARGUMENT...]: a step of the test.
check() {
	local status
	set +e
	(step "$@")
	status=$?
	set -e
	[ "$status" -eq 0 ] || end_failed
	passed=$((passed + 1))
}

# use RELEASE: boot the machine with a kernel, and use the packages there.
use() {
	local test seconds
	check "making a disk of the machine" make_disk
	check "booting Linux $1" boot "$1"
	for test in tests/package/sh/*; do
		test=$(basename "$test")
		seconds=$(sed -n "s/^dm-switch guest: passed $test //p" "$work/output")
		if [ -z "$seconds" ]; then
			cat "$work/output" >&2
			end_failed
		fi
		printf 'dm-switch: the test %s ... %d s\n' "$test" "$seconds" >&2
		passed=$((passed + 1))
	done
}

need_root
scripts/deb.sh
version=$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)
dependencies=$(for package in ./dm-switch-*_"$version"_*.deb; do dpkg-deb -f "$package" Depends; done | paste -s -d ,)
machine=$cache/machine-$({
	printf '%s\n' "$suite" "${series[@]}" "${machine_packages[@]}" "$dependencies"
	declare -f make_machine
} | digest)
once "$machine" "making a Debian 13 with Linux ${series[0]}" make_machine "$dependencies"
{
	read -r old
	read -r new
} <"$machine/kernels"

work=$(mktemp -d "$cache/check-package.XXXXXX")
trap 'rm -rf "$work"' EXIT
dir=$work/machine
step "copying it" cp -a "$machine" "$dir"
# Nobody is there to say yes.
echo 'APT::Get::Assume-Yes "true";' >"$dir/etc/apt/apt.conf.d/yes"
files >"$work/before"
check "installing the packages" install
check "preferring the module to the kernel's own" prefer
use "$old"
check "upgrading to Linux $new" upgrade
use "$new"
check "refusing kernels that no module can be built for" refuse
check "refusing a kernel whose source is not to be had" refuse_without_source
check "purging the packages" purge
printf '%d passed, 0 failed\n' "$passed"
