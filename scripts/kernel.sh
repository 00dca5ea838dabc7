#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# kernel.sh: see to it that a kernel of Debian's is in the cache, with a tree that Rust modules can
# be built against, and print where its parts are, as shell assignments.
#
# KVER in the environment picks a kernel: a series (7.2), a version (7.3.4) or a release
# (7.3.4+deb13-amd64).  What is in the cache already is preferred to what the archive has.
#
# KERNEL in the environment has another kernel built from the same source, and takes that: debug, the
# one that scripts/debug.config describes, or another one, which differs from that as its own file there says.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/series.sh"
cd "$top"

kernels=$cache/kernel-${root##*-}-$(digest <scripts/metadata.sh)
want=${KVER:-${series[-1]}}
want=${want%-"${KERNEL:-}"-*}

# matching: of the releases on standard input, those that $want means; oldest first.
matching() {
	local release
	sort -V | while read -r release; do
		case $release in
		"$want" | "$want".* | "$want"+*) printf '%s\n' "$release" ;;
		esac
	done
}

# prepared: the releases that are in the cache.
prepared() {
	local dir
	for dir in "$kernels"/*/; do
		if [ -e "$dir/.whole" ]; then
			basename "$dir"
		fi
	done
}

# archived: the releases of the supported series for which the archive has all parts.
archived() {
	local pattern release
	in_root apt-get -qq -o APT::Sandbox::User=root update >&2
	pattern="^linux-headers-($(IFS='|' && echo "${series[*]//./\\.}"))\.[0-9]+\+deb[0-9]+-amd64\$"
	in_root apt-cache --names-only search "$pattern" |
		sed 's/^linux-headers-\([^ ]*\).*/\1/' | while read -r release; do
		find_packages "$release"
		if in_root apt-cache show "${packages[@]}" >/dev/null 2>&1; then
			printf '%s\n' "$release"
		fi
	done
}

# find_packages RELEASE: set version to that of its packages, and packages to their names with it.
find_packages() {
	local part
	version=$(in_root apt-cache show "linux-headers-$1" | sed -n 's/^Version: //p' | head -n 1)
	packages=()
	for part in "headers-$1" "kbuild-${1%-amd64}" "binary-$1" "modules-$1" "source-$(cut -d . -f 1-2 <<<"$1")"; do
		packages+=("linux-$part=$version")
	done
}

# prepare RELEASE DIR
prepare() {
	local release=$1 dir=$2 version packages package
	find_packages "$release"
	cd "$dir"
	mkdir debs
	(
		cd debs
		in_root apt-get -o APT::Sandbox::User=root download "${packages[@]}"
	)
	for package in debs/*.deb; do
		in_root dpkg-deb -x "$package" parts
	done
	in_root tar -xf parts/usr/src/linux-source-*.tar.xz
	mv linux-source-* source
	mkdir -p lib/modules
	mv "parts/usr/lib/modules/$release" lib/modules
	in_root depmod -b "$dir" "$release" &
	in_root "$top/scripts/metadata.sh" source "parts/usr/src/linux-headers-$release" build
	wait $!
	rm -rf debs parts
}

# unset_options: of those in the file options, the ones that the tree here does not have so.
unset_options() {
	grep '^CONFIG_' options | grep -vxFf .config || :
}

# build RELEASE SOURCE DIR: build the kernel that the files $configs describe.
build() {
	local release=$1 source=$2 dir=$3 missing
	mkdir "$dir/build"
	cd "$dir/build"
	# Comes before the one that the kernel's build makes.  KASAN and Rust together take clang.
	cat >GNUmakefile <<-EOF
		export LLVM := -19
		export LOCALVERSION := ${release#"${release%%+*}"}
		export KBUILD_OUTPUT := $PWD
		include $source/Makefile
	EOF
	in_root "$source/scripts/kconfig/merge_config.sh" -m "${configs[@]}"
	mv .config options
	in_root make -s KCONFIG_ALLCONFIG=options allnoconfig
	missing=$(unset_options)
	[ -z "$missing" ] || die "these options of ${configs[*]} cannot be had:
$missing"
	in_root make -s "-j$(nproc)" bzImage modules
	in_root make -s "INSTALL_MOD_PATH=$dir" modules_install
	cp arch/x86/boot/bzImage "$dir/lib/modules/$release/vmlinuz"
}

# cached: the newest of the releases that are wanted and in the cache.
cached() {
	prepared | matching | tail -n 1
}

need_root
release=$(cached)
if [ -z "$release" ]; then
	# The build root's apt does not wait for another run's.
	exec 8>"$kernels.lock"
	lock 8 "waiting for another run that prepares a kernel"
	release=$(cached)
fi
if [ -z "$release" ]; then
	sources >"$root/etc/apt/sources.list"
	have=$(archived)
	release=$(matching <<<"$have" | tail -n 1)
	[ -n "$release" ] || die "the archive has no kernel $want; with KVER it has:
$(sort -V <<<"$have" | sed 's/^/  /')"
	once "$kernels/$release" "preparing the kernel $release" prepare "$release"
fi

dir=$kernels/$release
if [ -n "${KERNEL:-}" ]; then
	configs=("$top/scripts/debug.config") source=$dir/source
	[ -e "$top/scripts/$KERNEL.config" ] || die "KERNEL: there is no scripts/$KERNEL.config"
	[ "$KERNEL" = debug ] || configs+=("$top/scripts/$KERNEL.config")
	release=$release-$KERNEL-$(cat "${configs[@]}" | digest)
	dir=$cache/kernel-$KERNEL-${root##*-}/$release
	once "$dir" "building the kernel $release" build "$release" "$source"
fi
modules=$dir/lib/modules/$release
cat <<EOF
KVER='$release'
KDIR='$dir/build'
VMLINUZ='$modules/vmlinuz'
MODULES='$modules'
KO='$top/dm-switch.ko'
SWUPLOAD='$tools/swupload'
EOF
