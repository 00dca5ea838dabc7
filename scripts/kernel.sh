#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make kernelinfo; need_kernel in lib.sh calls it, too.
#
# kernel.sh: get a kernel of Debian's into the cache, with a tree that the module can be built against
# and a root with the compilers for that, and print where its parts are, as shell assignments.
#
# ARCH in the environment is the architecture that the kernel is for, amd64, which is the default, or arm64.  The parts
# of the headers that run on the host are the host's.
#
# KVER in the environment picks a kernel: a series (7.2), a version (7.3.4) or a release
# (7.3.4+deb13-amd64).  What is in the cache already is preferred to what the archive has.
#
# CRATE in the environment says which crate "kernel" the module is to be built with: kernel, the kernel's own, for
# which Rust metadata is made from the kernel's source, or compat, the stand-in, for which the headers packages
# are enough.  Without it, it is the kernel's own where the series has one.
#
# TOOLCHAIN in the environment has the module built with the compilers of that suite of Debian's (trixie, bookworm);
# without it, it is the suite that the kernel is from.
#
# KERNEL in the environment has another kernel built from the same source, and takes that: debug, the
# one that scripts/debug.config describes, or another one, which differs from that as its own file there says.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/series.sh"
cd "$top"

# matching: of the releases on standard input, those that $want means; oldest first.
matching() {
	local release
	sort -V | while read -r release; do
		case $release in
		"$want" | "$want"[.+-]*) printf '%s\n' "$release" ;;
		esac
	done
}

# cached: the releases for the architecture of which the cache has all that is needed.
cached() {
	local dir release part
	for dir in "${needed[0]}"/*-"$architecture"/; do
		release=$(basename "$dir")
		for part in "${needed[@]}"; do
			[ -e "$part/$release/.whole" ] || continue 2
		done
		printf '%s\n' "$release"
	done
}

# archived: the releases of the series that the archive has headers for.
archived() {
	in_root apt-cache --names-only search \
		"^linux-headers-${chosen//./\\.}\.[0-9]+(-[0-9]+|\+deb[0-9.]+)-$architecture\$" |
		sed 's/^linux-headers-\([^ ]*\).*/\1/'
}

# has_packages PACKAGE...: the archive has all of them.  A kernel's headers may be there days before its image.
has_packages() {
	local package
	for package; do
		# apt-cache is content with one of several, and prints nothing of a name that only others depend on.
		[ -n "$(in_root apt-cache show "$package" 2>/dev/null)" ] || return 1
	done
}

# find_packages RELEASE: set stock_packages and source_packages to what these parts are made of.
find_packages() {
	local headers version image name
	headers=$(in_root apt-cache show "linux-headers-$1" | sed '/^$/q')
	version=$(sed -n 's/^Version: //p' <<<"$headers")
	image=("linux-image-$1")
	if has_packages "linux-binary-$1"; then
		image=("linux-binary-$1" "linux-modules-$1")
	fi
	stock_packages=()
	for name in "linux-headers-$1" "${image[@]}" \
		$(sed -n '/^Depends: /p' <<<"$headers" | grep -oE 'linux-headers-[^ ,]*'); do
		stock_packages+=("$name=$version")
	done
	# Of this one the archive may have a later version alone, which the headers take.
	name=$(sed -n '/^Depends: /p' <<<"$headers" | grep -oE 'linux-kbuild-[^ ,]*' || :)
	if [ -n "$name" ] && has_packages "$name=$version"; then
		name="$name=$version"
	fi
	stock_packages+=(${name:+"$name"})
	source_packages=("linux-source-$chosen=$version")
}

# begun: of the releases on standard input, those of which the cache has a part.
begun() {
	local release
	while read -r release; do
		if [ -e "$stock/$release/.whole" ] || [ -e "$source/$release/.whole" ]; then
			printf '%s\n' "$release"
		fi
	done
}

# newest: the newest release that is wanted and that the archive has all packages of; one of which the cache has a
# part comes first.
newest() {
	local releases release stock_packages source_packages
	releases=$(archived | matching | tac)
	for release in $(begun <<<"$releases") $releases; do
		find_packages "$release"
		if has_packages "${stock_packages[@]}" "${source_packages[@]}"; then
			printf '%s\n' "$release"
			break
		fi
	done
}

# unpack PACKAGE...: download packages, and unpack them into the current directory.
unpack() {
	local package
	mkdir debs
	(
		cd debs
		in_root apt-get -o APT::Sandbox::User=root download "$@"
	)
	for package in debs/*.deb; do
		in_root dpkg-deb -x "$package" .
	done
	rm -r debs
}

# make_stock RELEASE DIR: the kernel, its modules and its headers, as packages have them, but with the paths
# that they have here.
make_stock() {
	local release=$1
	cd "$2"
	# Packages of Debian 12 have /lib.
	mkdir -p usr/lib
	ln -s usr/lib lib
	unpack "${stock_packages[@]}"
	if [ -e "boot/vmlinuz-$release" ]; then
		mv "boot/vmlinuz-$release" "lib/modules/$release/vmlinuz"
	fi
	rm -rf boot usr/share
	sed -i "s|/usr/src/|$PWD&|" "usr/src/linux-headers-$release/Makefile"
	in_root depmod -b "$PWD" "$release"
}

# make_source DIR: the kernel's source.
make_source() {
	mkdir "$1/package"
	cd "$1/package"
	unpack "${source_packages[@]}"
	cd ..
	in_root tar -xf package/usr/src/linux-source-*.tar.xz --strip-components 1
	rm -r package
}

# make_metadata SOURCE HEADERS DIR
make_metadata() {
	in_root "$top/scripts/metadata.sh" "$1" "$2" "$3/build"
}

# unset_options: of those in the file options, the ones that the tree here does not have so.
unset_options() {
	grep '^CONFIG_' options | grep -vxFf .config || :
}

# make_kernel RELEASE SOURCE DIR: build the kernel that the files $configs describe.
make_kernel() {
	local release=$1 source=$2 dir=$3 missing
	mkdir "$dir/build"
	cd "$dir/build"
	# Comes before the one that the kernel's build makes.  KASAN and Rust together take clang.
	cat >GNUmakefile <<-END
		export LLVM := -19
		export LOCALVERSION := ${release#"${release%%+*}"}
		export KBUILD_OUTPUT := $PWD
		include $source/Makefile
	END
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

# choose_crate: set CRATE to its default if it is not set, and check it.
choose_crate() {
	local has_rust=no
	# Metadata is made of the host's kernels alone.
	if [ "$architecture" = "$host_architecture" ] && [[ " ${rust_series[*]} " == *" $chosen "* ]]; then
		has_rust=yes
	fi
	case ${CRATE:-}/$has_rust in
	/yes) CRATE=kernel ;;
	/no) CRATE=compat ;;
	compat/* | kernel/yes) ;;
	kernel/no)
		die "CRATE=kernel: Linux $chosen on $architecture has no crate kernel that the module can be built with;\
 CRATE=compat" ;;
	*) die "CRATE is kernel or compat, not $CRATE" ;;
	esac
}

# choose_toolchain: set TOOLCHAIN to its default if it is not set, and check it.
choose_toolchain() {
	local own=${suites[$chosen]%-backports}
	# The compilers of trixie make the kernels of KERNEL, and all that is for another machine than the host.
	if [ -n "${KERNEL:-}" ] || [ "$architecture" != "$host_architecture" ]; then
		own=trixie
	fi
	case ${TOOLCHAIN:=$own}/$own in
	trixie/* | bookworm/bookworm) ;;
	bookworm/trixie) die "TOOLCHAIN=bookworm: this kernel takes trixie's compilers" ;;
	*) die "TOOLCHAIN is trixie or bookworm, not $TOOLCHAIN" ;;
	esac
}

# get_part PART: have it made from packages, unless the cache has it.
get_part() {
	case $1 in
	"$stock") usually=20 once "$stock/$release" "getting the kernel $release" make_stock "$release" ;;
	"$source") usually=30 once "$source/$release" "getting the source of $release" make_source ;;
	esac
}

# get_release: choose a release that the archive has, get what is needed of it, and set release.
get_release() {
	local stock_packages source_packages part
	sources "${suites[$chosen]}" >"$root/etc/apt/sources.list"
	step "reading the archive's lists of packages" in_root apt-get -qq -o APT::Sandbox::User=root update
	release=$(newest)
	[ -n "$release" ] || die "the archive has no kernel $want; with KVER it has:
$(archived | sort -V | sed 's/^/  /')"
	find_packages "$release"
	for part in "${needed[@]:1}"; do
		beside get_part "$part"
	done
	get_part "${needed[0]}"
	join "getting the rest of the kernel"
}

if [ -n "${KERNEL:-}" ] && [ "$architecture" != "$host_architecture" ]; then
	die "KERNEL=$KERNEL: kernels of our own are for $host_architecture alone, not for $architecture"
fi
want=${KVER:-${default_series[$architecture]}}
want=${want%-"${KERNEL:-}"-*}
chosen=$(series_of "$want")
[ -n "$chosen" ] || die "KVER: the module supports kernels of the series ${series[*]}, not $want"
choose_crate
choose_toolchain

# The parts, each with a directory for every release.
stock=$cache/kernel-$(declare -f unpack make_stock | digest)
source=$cache/source-$(declare -f unpack make_source | digest)
metadata=$cache/metadata-${root##*-}-$(cat - scripts/metadata.sh <<<"$stock $source" | digest)
if [ -n "${KERNEL:-}" ]; then
	needed=("$source")
elif [ "$CRATE" = kernel ]; then
	needed=("$stock" "$source")
else
	needed=("$stock")
fi

need_root
need_builder "$TOOLCHAIN"
release=$(cached | matching | tail -n 1)
if [ -z "$release" ]; then
	# The build root's apt does not wait for another run's.
	exec 8>"$root-apt.lock"
	lock 8 "waiting for another run that gets a kernel"
	release=$(cached | matching | tail -n 1)
	[ -n "$release" ] || get_release
	exec 8>&-
fi

if [ -n "${KERNEL:-}" ]; then
	configs=("$top/scripts/debug.config") dir=$source/$release
	[ -e "$top/scripts/$KERNEL.config" ] || die "KERNEL: there is no scripts/$KERNEL.config"
	[ "$KERNEL" = debug ] || configs+=("$top/scripts/$KERNEL.config")
	release=$release-$KERNEL-$(cat "${configs[@]}" - <<<"$dir $(declare -f make_kernel)" | digest)
	usually=2000 once "$cache/kernel-$KERNEL-${root##*-}/$release" "building the kernel $release" \
		make_kernel "$release" "$dir"
	dir=$cache/kernel-$KERNEL-${root##*-}/$release
	tree=$dir/build
else
	dir=$stock/$release
	tree=$dir/usr/src/linux-headers-$release
	if [ "$CRATE" = kernel ]; then
		usually=110 once "$metadata/$release" "making the Rust metadata of $release" \
			make_metadata "$source/$release" "$tree"
		tree=$metadata/$release/build
	fi
fi
modules=$dir/lib/modules/$release
cat <<END
KVER='$release'
KDIR='$tree'
CRATE='$CRATE'
BUILDER='$BUILDER'
VMLINUZ='$modules/vmlinuz'
MODULES='$modules'
KO='$top/dm-switch.ko'
SWUPLOAD='$tools/swupload'
END
