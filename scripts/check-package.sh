#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make check-package.
#
# check-package.sh: in a Debian 12 and a Debian 13, each with its own kernel: install the module with DKMS from the
# tarball of dist.sh, and with make from a checkout; install the packages with apt, boot the machine, and use them;
# upgrade to the kernels of the backports, and the same with each; purge the packages.  The commands of README.md and
# docs/guide.md are among what is done, as they stand there.  The last line is "N passed, N failed".  A step that fails
# is the last one.
#
# SUITE in the environment picks one of the two: bookworm or trixie.

. "$(dirname "$0")/lib.sh"
cd "$top"
. tests/lib/checks.sh
. tests/package/document.sh

# The series of kernels that a machine of each suite gets: its own, and then those of the backports.
declare -A machine_series=(
	[bookworm]="6.1 6.12"
	[trixie]="6.12 7.2 7.3"
)

# What the machine has besides its kernels and what the packages depend on: what boots, and what the tests use.
machine_packages=(
	ca-certificates e2fsprogs initramfs-tools systemd-sysv udev dmsetup
	libnl-genl-3-dev libnl-utils python3-jsonschema python3-pyroute2 python3-yaml
	iproute2 multipath-tools open-iscsi
	cryptsetup-bin fdisk lvm2
)

# The serial numbers of the machine's other disks, of 64 MiB.
other_disks=(a0 a1 b0 b1 c0 c1)

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

# newest DIR SERIES: the newest release of a series that the archive has headers and a kernel for.
newest() {
	local release
	in_machine "$1" apt-cache --names-only search \
		"^linux-headers-${2//./\\.}\.[0-9]+(-[0-9]+|\+deb[0-9.]+)-$architecture\$" |
		sed 's/^linux-headers-\([^ ]*\).*/\1/' | sort -rV | while read -r release; do
		if [ -n "$(in_machine "$1" apt-cache show "linux-image-$release" 2>/dev/null)" ]; then
			printf '%s\n' "$release"
			break
		fi
	done
}

# flavours RELEASE: the same kernel for machines in clouds, and for real time.
flavours() {
	printf '%s\n' "${1%-"$architecture"}"-{cloud,rt}"-$architecture"
}

# get_ynl DIR SERIES: the kernel's ynl, from the source of this series, into /opt/linux.
get_ynl() {
	mkdir "$1/opt/package" "$1/opt/linux"
	in_machine "$1" --chdir /opt/package apt-get -o APT::Sandbox::User=root -t "$suite-backports" \
		download "linux-source-$2"
	in_machine "$1" --chdir /opt/package bash -c 'dpkg-deb --fsys-tarfile *.deb | tar -x --wildcards "*.tar.xz"'
	tar -xf "$1/opt/package/usr/src/linux-source-$2.tar.xz" -C "$1/opt/linux" --strip-components 1 \
		--wildcards '*/tools/net/ynl' '*/Documentation/netlink'
	rm -r "$1/opt/package"
}

# make_machine DEPENDENCIES DIR: make a machine with the suite's own kernel, on which the packages can be installed.
# What an upgrade to the newer ones takes is downloaded.
make_machine() {
	local dependencies=$1 dir=$2 list release series
	read -ra list <<<"${machine_series[$suite]}"
	make_root "${machine_packages[@]}" "$dir"
	# Small initial file systems.
	echo MODULES=list >"$dir/etc/initramfs-tools/conf.d/modules"
	printf '%s\n' ext4 virtio_blk virtio_pci >>"$dir/etc/initramfs-tools/modules"
	apt "$dir" update
	for series in "${list[@]}"; do
		release=$(newest "$dir" "$series")
		[ -n "$release" ] || die "the archive has no kernel of $series with headers"
		printf '%s\n' "$release"
	done >"$dir/kernels"
	read -r release <"$dir/kernels"
	apt "$dir" install "linux-image-$release" "linux-headers-$release"
	# An upgrade takes the newest of these.
	apt "$dir" -t "$suite-backports" install linux-base linux-libc-dev pahole
	apt "$dir" satisfy "$dependencies"
	get_ynl "$dir" "${list[1]}"
	apt "$dir" clean
	for release in $(flavours "$release"); do
		apt "$dir" install --no-install-recommends --download-only "linux-headers-$release"
	done
	for release in $(tail -n +2 "$dir/kernels"); do
		install_kernel "$dir" "$release" --download-only
	done
}

# run_commands DOCUMENT KIND: run the commands of this kind of a document (see tests/package/document.sh) in the
# machine, in /opt.
run_commands() {
	local parts block
	parts=$(mktemp -d "$work/document.XXXXXX")
	blocks "$1" "$parts"
	for block in "$parts"/*."sh-$2"; do
		[ -e "$block" ] || die "$1 has no block \"sh $2\""
		in_machine "$dir" --chdir /opt bash -e -c "$(<"$block")"
	done
}

# files: what is on the machine, less what apt, dpkg and the log keep of what was installed before, less the key that
# dkms makes at its first build and keeps, and less the size of initial file systems, which is another each time.
files() {
	(
		cd "$dir"
		find . \( -path ./var/log -o -path ./var/cache -o -path ./var/lib/apt -o -path './var/lib/dkms/mok.*' \
			-o -path './var/lib/dpkg/*-old' -o -path ./var/lib/dpkg/status \) -prune -o \
			\( -type f -printf '%p %m %U:%G %s\n' -o -printf '%p %y %m %U:%G %l\n' \) |
			sed 's,^\(\./boot/initrd\..*\) [0-9]*$,\1,' | sort
	)
}

# find_module RELEASE: where modprobe finds the module; older kernels' modules are not compressed.
find_module() {
	in_machine "$dir" modinfo -k "$1" -F filename dm-switch
}

# installed RELEASE: DKMS has the module installed for a kernel, and modprobe takes it.
installed() {
	# Newer ones say behind that that they keep the kernel's own module.
	expect "DKMS on $1" "dm-switch/$version, $1, x86_64: installed" \
		"$(in_machine "$dir" dkms status -m dm-switch -k "$1" | sed 's/ (.*)$//')"
	expect "the module for $1" "/lib/modules/$1/updates/dkms/dm-switch.ko" "$(find_module "$1" | sed 's/\.xz$//')"
	expect "its version" "$version" "$(in_machine "$dir" modinfo -k "$1" -F version dm-switch)"
}

# same_files: the machine is as it was before.
same_files() {
	files >"$work/after"
	diff "$work/before" "$work/after"
}

# plain: DKMS alone makes the module from the tarball, within what README.md says that it takes, and removes it.
plain() {
	scripts/dist.sh "$dir/opt"
	tar -xf "$dir/opt/dm-switch-$version.tar.gz" -C "$dir/opt"
	in_machine "$dir" dkms add "/opt/dm-switch-$version"
	in_machine "$dir" python3 - dkms build "dm-switch/$version" -k "$own" <tests/package/measure.py |
		tee "$work/measured"
	in_machine "$dir" dkms install "dm-switch/$version" -k "$own"
	installed "$own"
	in_machine "$dir" dkms remove "dm-switch/$version" --all
	rm -r "$dir/opt/dm-switch-$version.tar.gz" "$dir/opt/dm-switch-$version" "$dir/usr/src/dm-switch-$version"
	same_files
}

# in_checkout COMMAND...: run a command in what the tarball has, without a network and as a user who is nobody.
in_checkout() {
	in_machine "$dir" --unshare-net --setenv HOME /nonexistent --chdir "/opt/dm-switch-$version" \
		setpriv --reuid 1000 --regid 1000 --clear-groups "$@"
}

# checkout: make builds the module against the headers that are installed, and root installs it.
checkout() {
	local tree=/lib/modules/$own/build program
	scripts/dist.sh "$dir/opt"
	tar -xf "$dir/opt/dm-switch-$version.tar.gz" -C "$dir/opt"
	chown -R 1000:1000 "$dir/opt/dm-switch-$version"
	in_checkout make "KDIR=$tree"
	in_checkout make install "KDIR=$tree" DESTDIR=/tmp/installed
	# In the place of make tools, which takes a build root.
	command install -D /dev/null "$dir/opt/cache/dm-switch/$(basename "$tools")/swupload"
	in_machine "$dir" --unshare-net --setenv XDG_CACHE_HOME /opt/cache --chdir "/opt/dm-switch-$version" \
		make install "KDIR=$tree"
	# Whatever depmod's search order is.
	echo "search built-in updates" >"$dir/etc/depmod.d/search.conf"
	in_machine "$dir" depmod "$own"
	expect "the module" "/lib/modules/$own/updates/dm-switch.ko" "$(find_module "$own")"
	rm "$dir/etc/depmod.d/search.conf"
	mkdir "$dir/opt/bin"
	for program in dmsetup udevadm systemctl; do
		echo "echo $program \$1 >>/run/log" >"$dir/opt/bin/$program"
	done
	echo '[ ! -e /run/volumes ] || cat /run/volumes' >>"$dir/opt/bin/dmsetup"
	chmod +x "$dir"/opt/bin/*
	expect "what make uninstall says if there is a volume" \
		"dm-switch: stop this volume first (dm-switch-volume stop NAME): volume" \
		"$(in_machine "$dir" --setenv PATH /opt/bin:/usr/sbin:/usr/bin --chdir "/opt/dm-switch-$version" bash -c \
			"echo DMSWITCH-VOLUME-volume >/run/volumes
			make uninstall 2>&1 || :" | grep '^dm-switch: ')"
	expect "what make uninstall does" "dmsetup info dmsetup info udevadm control udevadm trigger systemctl daemon-reload" \
		"$(in_machine "$dir" --setenv PATH /opt/bin:/usr/sbin:/usr/bin --chdir "/opt/dm-switch-$version" bash -ec \
			"mkdir -p /run/udev /run/systemd/system
			touch /run/udev/control /run/dm-switch.lock
			make uninstall >&2
			paste -s -d ' ' /run/log")"
	rm -r "$dir"/opt/{bin,cache} "$dir/tmp/installed" "$dir/opt/dm-switch-$version" "$dir/opt/dm-switch-$version.tar.gz"
	# Directories that are empty now, and were not there.
	(
		cd "$dir"
		find ./usr/local ./usr/lib/depmod.d "./usr/lib/modules/$own/updates" -depth -type d -empty \
			! -exec grep -qF "{} d " "$work/before" \; -delete
	)
	same_files
}

# says TEXT: standard input has the text, in lines of any length; what apt prints has carriage returns.
says() {
	[[ $(tr -s '[:space:]' ' ') == *"$1"* ]]
}

install() {
	local bare=1.2.3-cloud-amd64
	cp ./dm-switch-*_"$version"_*.deb "$dir/opt"
	# A kernel without headers.
	mkdir -p "$dir/usr/lib/modules/$bare/kernel"
	run_commands README.md install 2>&1 | tee "$work/said"
	rm -r "$dir"/opt/*.deb "$dir/usr/lib/modules/$bare"
	says "dm-switch is not built for the kernel $bare: its headers are not installed" <"$work/said"
	installed "$own"
	expect "swupload" "swupload $version" "$(in_machine "$dir" swupload --version)"
}

# in_initramfs RELEASE: the module in an initramfs that has all that one can have.
in_initramfs() {
	in_machine "$dir" sh -e -c "cp -r /etc/initramfs-tools /run/settings
		echo MODULES=most >/run/settings/conf.d/modules
		echo dm-switch >>/run/settings/modules
		mkinitramfs -d /run/settings -o /run/initrd $1 >&2
		lsinitramfs /run/initrd" | grep '/dm-switch\.ko'
}

# A kernel that is installed again brings its own module back, and an administrator may prefer those.  Debian 12's DKMS
# leaves the kernel's own where it is, newer ones move it away.
prefer() {
	local kept=$dir/var/lib/dkms/dm-switch/original_module/$own/x86_64 drivers=$dir/usr/lib/modules/$own/kernel/drivers/md
	if [ -e "$kept" ]; then
		cp "$kept"/dm-switch.ko* "$drivers"
	fi
	ls "$drivers"/dm-switch.ko*
	echo "search built-in updates" >"$dir/etc/depmod.d/search.conf"
	in_machine "$dir" depmod "$own"
	installed "$own"
	expect "what is in the initramfs" "usr/lib/modules/$own/updates/dkms/dm-switch.ko" \
		"$(in_initramfs "$own" | sed 's/\.xz$//')"
	rm "$dir/etc/depmod.d/search.conf"
	if [ -e "$kept" ]; then
		rm "$drivers"/dm-switch.ko*
	fi
	in_machine "$dir" depmod "$own"
}

# build_flavours: DKMS builds the module for the flavours of the machine's kernel.  Debian 13 installs these kernels
# with their headers.
build_flavours() {
	local release
	for release in $(flavours "$own"); do
		apt "$dir" install --no-install-recommends "linux-headers-$release"
		expect "DKMS on $release" "dm-switch/$version, $release, x86_64: installed" \
			"$(in_machine "$dir" dkms status -m dm-switch -k "$release" | sed 's/ (.*)$//')"
		in_machine "$dir" dkms unbuild "dm-switch/$version" -k "$release"
		apt "$dir" purge "linux-*-$release"
		# Debian 12's DKMS has depmod write there.
		rm -rf "$dir/usr/lib/modules/$release"
	done
	apt "$dir" purge "linux-headers-*-common-rt"
}

# upgrade RELEASE: to a kernel of the backports.
upgrade() {
	install_kernel "$dir" "$1"
	installed "$own"
	installed "$1"
}

# make_disk: make a disk with the machine on it, and the tests.
make_disk() {
	cp -r tests/package "$dir/t"
	mkdir "$dir/t/lib"
	cp tests/lib/{test,checks,log,disks,messages,run-test}.sh "$dir/t/lib"
	cp README.md docs/guide.md "$dir/t"
	in_machine "$dir" cc -Wall -Wextra -Werror -I /usr/include/libnl3 -o /t/upload /t/upload.c -l nl-genl-3 -l nl-3
	rm -f "$work/disk"
	truncate -s 8G "$work/disk"
	in_machine "$dir" mkfs.ext4 -q -L system -d "/mnt/${dir#"$cache/"}" "/mnt/${work#"$cache/"}/disk"
	rm -r "$dir/t"
	for disk in "${other_disks[@]}"; do
		rm -f "$work/disk-$disk"
		truncate -s 64M "$work/disk-$disk"
	done
}

# initrd RELEASE: the machine's own, which it may have made anew.
initrd() {
	in_machine "$dir" debugfs -R "dump /boot/initrd.img-$1 /mnt/${work#"$cache/"}/initrd" "/mnt/${work#"$cache/"}/disk"
}

# boot RELEASE: boot the machine on the disk with a kernel, and run the tests; boot it again where one of them says
# so.
boot() {
	local disk drives=()
	for disk in "${other_disks[@]}"; do
		drives+=(-drive "file=$work/disk-$disk,format=raw,if=none,id=$disk" -device "virtio-blk-pci,drive=$disk,serial=$disk")
	done
	: >"$work/output"
	until grep -qx "dm-switch guest: end" "$work/output"; do
		initrd "$1"
		emulate "$work/boot" "$limit" -smp 2 -m 1500 \
			-kernel "$dir/boot/vmlinuz-$1" -initrd "$work/initrd" \
			-drive "file=$work/disk,format=raw,if=virtio" "${drives[@]}" \
			-append "root=LABEL=system rw console=ttyS0 panic=-1 oops=panic log_buf_len=4M systemd.run=/t/guest.sh" || :
		cat "$work/boot" >>"$work/output"
		if ! grep -qx "dm-switch guest: \(end\|reboot\)" "$work/boot"; then
			# A step shows the last 40 lines.
			tail -n 18 "$work/output" "$work/boot.log"
			return 1
		fi
	done
}

# refuses TEXT [COMMANDS]: DKMS makes no module for a kernel that is installed, and says why; the installation of the
# kernel goes on, and DKMS keeps its log alone.  The kernel is another name of the machine's own, with the headers in
# $headers; the commands are run there before.
refuses() {
	local release=$own-refused said
	mkdir "$dir/usr/lib/modules/$release"
	ln -s "${headers#"$dir"}" "$dir/usr/lib/modules/$release/build"
	said=$(in_machine "$dir" bash -ec "${2:-}
		/etc/kernel/postinst.d/dkms $release
		cd /var/lib/dkms/dm-switch/$version
		[ ! -e $release ]
		echo left: build/*" 2>&1) || {
		echo "$said"
		return 1
	}
	echo "$said"
	rm -r "$dir/usr/lib/modules/$release"
	says "dm-switch is not built for the kernel $release: $1" <<<"$said"
	grep -qx "left: build/make.log" <<<"$said"
}

# refuse: kernels and machines that no module can be built on.  tests/host/missing and tests/host/dkms have the other
# reasons.
refuse() {
	local headers=$dir/usr/src/refused
	cp -a "$dir/usr/src/linux-headers-$own" "$headers"
	sed -i '/^CONFIG_BLK_DEV_DM=/d' "$headers/include/config/auto.conf"
	refuses "the kernel has no CONFIG_BLK_DEV_DM"
	echo CONFIG_BLK_DEV_DM=m >>"$headers/include/config/auto.conf"
	echo CONFIG_CFI_CLANG=y >>"$headers/include/config/auto.conf"
	refuses "the kernel has CONFIG_CFI_CLANG"
	rm -r "$headers"
	headers=$dir/usr/src/linux-headers-$own
	mv "$dir/usr/bin/bindgen" "$dir/usr/bin/no-bindgen"
	refuses "there is no bindgen: install the package bindgen"
	mv "$dir/usr/bin/no-bindgen" "$dir/usr/bin/bindgen"
	# The kernel that runs is the machine's own where its modules are there.
	mkdir "$dir/usr/lib/modules/$(uname -r)"
	command install -m 755 /dev/stdin "$dir/usr/bin/mokutil" <<-'END'
		#!/bin/sh
		[ "$1" = --sb-state ] && echo "SecureBoot enabled" || echo "$2 is not enrolled"
	END
	refuses "secure boot is on, and the key with which DKMS signs modules is not enrolled"
	rm -r "$dir/usr/lib/modules/$(uname -r)" "$dir/usr/bin/mokutil"
	refuses "there is no space left in /var/lib/dkms" "mount -t tmpfs -o size=16M none /var/lib/dkms
		dkms add dm-switch/$version"
	refuses "/var/lib/dkms/dm-switch/$version/build, from where the compiler loads a library, is on a file system that" \
		"mount --bind /var/lib/dkms /var/lib/dkms
		mount -o remount,bind,noexec /var/lib/dkms"
}

# packages: those that are installed on the machine.
packages() {
	in_machine "$dir" dpkg-query -W -f "\${binary:Package}\n" | sort
}

purge() {
	local added
	# Saved page tables stay as long as there is a table file.
	expect "the saved page tables that postrm leaves" /var/lib/dm-switch/volume.hex "$(in_machine "$dir" sh -ec \
		"mkdir -p /etc/dm-switch /var/lib/dm-switch
		touch /etc/dm-switch/volume.table /var/lib/dm-switch/volume.hex
		/var/lib/dpkg/info/dm-switch-tools.postrm purge >&2
		ls /var/lib/dm-switch/*
		rm -r /etc/dm-switch")"
	run_commands README.md purge
	# The kernels, and what they need.
	mapfile -t added < <(packages | comm -13 "$work/packages" -)
	apt "$dir" purge "${added[@]}"
	same_files
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
	usually=900 check "booting Linux $1" boot "$1"
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

# check_suite SUITE: all of it in a machine of this suite.
check_suite() {
	local suite=$1 template own newer release
	template=$cache/machine-$suite-$({
		printf '%s\n' "${machine_series[$suite]}" "${machine_packages[@]}" "$dependencies"
		declare -f newest flavours get_ynl make_machine
	} | digest)
	usually=200 once "$template" "making a Debian $suite with its kernel" make_machine "$dependencies"
	own=$(head -n 1 "$template/kernels")
	mapfile -t newer < <(tail -n +2 "$template/kernels")
	rm -rf "$dir"
	step "copying the machine" cp -a "$template" "$dir"
	# Nobody is there to say yes.
	echo 'APT::Get::Assume-Yes "true";' >"$dir/etc/apt/apt.conf.d/yes"
	# Debian 12 has none.
	mkdir -p "$dir/etc/depmod.d"
	files >"$work/before"
	packages >"$work/packages"
	usually=60 check "building with DKMS from the tarball" plain
	printf 'dm-switch: DKMS took %s\n' "$(tail -n 1 "$work/measured")" >&2
	usually=60 check "building in a checkout" checkout
	usually=60 check "installing the packages" install
	check "preferring the module to the kernel's own" prefer
	use "$own"
	for release in "${newer[@]}"; do
		usually=150 check "upgrading to Linux $release" upgrade "$release"
		use "$release"
	done
	check "building for a cloud's and a real-time kernel" build_flavours
	check "refusing kernels that no module can be built for" refuse
	check "purging the packages" purge
}

need_root
scripts/deb.sh
version=$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)
dependencies=$(for package in ./dm-switch-*_"$version"_*.deb; do dpkg-deb -f "$package" Depends; done | paste -s -d ,)
work=$(mktemp -d "$cache/check-package.XXXXXX")
trap 'rm -rf "$work"' EXIT
dir=$work/machine
for debian in ${SUITE:-bookworm trixie}; do
	[ -n "${machine_series[$debian]:-}" ] || die "SUITE is ${!machine_series[*]}, not $debian"
	check_suite "$debian"
done
printf '%d passed, 0 failed\n' "$passed"
