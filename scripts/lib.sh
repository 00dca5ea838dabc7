# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What every script of the host shares: the cache, and a build root in it, a small Debian that has
# the compilers, QEMU and the linters in the versions that the kernel asks for.  Everything that is
# built is built in there, so the host itself needs no more than $host_packages.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-~/.cache}/dm-switch

host_packages=(mmdebstrap bubblewrap ca-certificates debian-archive-keyring)

suite=trixie
root_packages=(
	# a kernel's Rust metadata and a module
	bc bindgen binutils bison cpio flex gcc gcc-14 kmod libc6-dev libclang-19-dev libdw-dev
	libelf-dev libssl-dev make pahole python3-minimal rust-src rustc xz-utils zlib1g-dev
	# swupload
	ca-certificates cargo
	# the guest and its tests
	busybox-static coreutils dmsetup e2fsprogs fio open-iscsi qemu-system-x86 socat xfsprogs xxd
	# the host's tests and the linters
	g++ mandoc rust-clippy rustfmt shellcheck
)
if [ -n "${KERNEL:-}" ]; then
	# a kernel of our own
	root_packages+=(clang-19 lld-19 llvm-19)
fi

die() {
	printf 'dm-switch: %s\n' "$*" >&2
	exit 1
}

# digest: the first digits of standard input's checksum, to key a part of the cache.
digest() {
	sha256sum | cut -c 1-12
}

# Where the build root is.
root=$cache/root-$(printf '%s\n' "$suite" "${root_packages[@]}" | digest)

# Where the swupload made from the checkout's sources is.
# shellcheck disable=SC2034 # used by the scripts that source this
tools=$cache/tools-${root##*-}-$(cat "$top"/tools/{swupload.rs,Cargo.toml,Cargo.lock,.cargo/config.toml} | digest)

# Where the fuzzer is, likewise.
# shellcheck disable=SC2034
fuzzer=$cache/fuzzer-${root##*-}-$(cat "$top"/tests/fuzz/{*.rs,Cargo.toml,Cargo.lock} "$top/tools/.cargo/config.toml" | digest)

# step TEXT COMMAND [ARGUMENT...]: run what takes long; say so, and how long it took.  The command's
# own output is shown where it fails.
step() {
	local text=$1 start=$SECONDS log status
	shift
	log=$(mktemp)
	printf 'dm-switch: %s ...' "$text" >&2
	set +e
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null
	status=$?
	set -e
	if [ "$status" -ne 0 ]; then
		printf ' failed:\n' >&2
		tail -n 40 "$log" >&2
		rm -f "$log"
		exit 1
	fi
	printf ' %d s\n' $((SECONDS - start)) >&2
	rm -f "$log"
}

# lock FD TEXT: lock the file that is open there; say TEXT where that has to wait for another run.
lock() {
	if ! flock -n "$1"; then
		printf 'dm-switch: %s\n' "$2" >&2
		flock "$1"
	fi
}

# once DIR TEXT COMMAND [ARGUMENT...]: have COMMAND fill DIR, unless it is filled.  What an
# interrupted run left of DIR is thrown away; a second run at the same time waits for the first.
once() {
	local dir=$1 text=$2
	shift 2
	[ -e "$dir/.whole" ] && return
	mkdir -p "$(dirname "$dir")"
	(
		lock 9 "$text: waiting for another run that does it"
		[ -e "$dir/.whole" ] && exit
		rm -rf "$dir"
		mkdir "$dir"
		step "$text" "$@" "$dir"
		touch "$dir/.whole"
	) 9>"$dir.lock"
}

# beside COMMAND [ARGUMENT...]: start a command in the background.
beside_jobs=() beside_logs=()
beside() {
	beside_logs+=("$(mktemp)")
	"$@" 2>"${beside_logs[-1]}" &
	beside_jobs+=($!)
}

# join: wait for what was started so, and show what it had to say; if any of it failed, that is the end.
join() {
	local job failed=0
	for job in "${!beside_jobs[@]}"; do
		wait "${beside_jobs[job]}" || failed=1
		cat "${beside_logs[job]}" >&2
		rm "${beside_logs[job]}"
	done
	[ "$failed" -eq 0 ] || exit 1
	beside_jobs=() beside_logs=()
}

# in_root COMMAND [ARGUMENT...]: run a command in the build root.  The cache and the checkout have
# the same paths in there as outside.
in_root() {
	bwrap --ro-bind "$root/usr" /usr --ro-bind "$root/etc" /etc --bind "$root/var" /var \
		--symlink usr/bin /bin --symlink usr/sbin /sbin \
		--symlink usr/lib /lib --symlink usr/lib64 /lib64 \
		--proc /proc --dev /dev --tmpfs /tmp --bind "$cache" "$cache" --bind "$top" "$top" \
		--ro-bind-try /etc/resolv.conf /etc/resolv.conf \
		--ro-bind-try /etc/ssl/certs /etc/ssl/certs \
		--clearenv --setenv PATH /usr/sbin:/usr/bin --setenv HOME /tmp --setenv LC_ALL C.UTF-8 \
		--setenv CARGO_HOME "$cache/cargo" \
		--die-with-parent --chdir "$PWD" "$@"
}

# The archive that the host's apt uses, as the build root's sources.
sources() {
	local format uri
	# shellcheck disable=SC2016 # apt's own variables
	format='$(RELEASE) $(COMPONENT) $(REPO_URI)'
	uri=$(apt-get indextargets --no-release-info --format "$format" 'Created-By: Packages' |
		awk '$1 !~ /[-\/]/ && $2 == "main" { print $3; exit }')
	[ -n "$uri" ] || die "apt has no Debian archive set up: see /etc/apt/sources.list.d"
	printf 'deb %s %s main\n' "$uri" "$suite" "$uri" "$suite-updates" "$uri" "$suite-backports"
}

# make_root PACKAGE... DIR: make a Debian with these packages.
make_root() {
	local dir=${*: -1}
	sources >"$dir.sources"
	apt-config dump --format '%f "%v";%n' Acquire | { grep -i '::proxy ' || :; } >"$dir.proxy"
	mmdebstrap --variant=apt --aptopt='APT::Install-Recommends "false"' --aptopt="$dir.proxy" \
		--dpkgopt=force-unsafe-io --include="${*:1:$#-1}" "$suite" "$dir" - <"$dir.sources"
	rm -f "$dir.sources" "$dir.proxy"
}

install_host_packages() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get update
	apt-get install -y --no-install-recommends "${host_packages[@]}"
}

# need_debian DIR WHAT PACKAGE...: see to it that WHAT is there in DIR, a Debian with these packages.
need_debian() {
	local dir=$1 what=$2
	shift 2
	[ "$(dpkg --print-architecture)" = amd64 ] || die "only amd64 is supported"
	if [ ! -e "$dir/.whole" ] || ! command -v bwrap >/dev/null; then
		[ "$(id -u)" = 0 ] ||
			die "the first run installs ${host_packages[*]} and a $what: run it as root"
		# apt itself does not wait for another run's.
		(
			flock 9
			step "installing ${host_packages[*]}" install_host_packages
		) 9>/run/lock/dm-switch
	fi
	once "$dir" "making the $what (Debian $suite)" make_root "$@"
}

# need_root: see to it that the build root is there.
need_root() {
	need_debian "$root" "build root" "${root_packages[@]}"
}

# need_kernel: see to it that the kernel is there, and set what kernel.sh prints.
need_kernel() {
	local assignments
	assignments=$("$top/scripts/kernel.sh")
	eval "$assignments"
}

# is_up OUTPUT: the guest has a first process.
is_up() {
	grep -qsa "Run /init as init process" "$1.log"
}

# emulate OUTPUT SECONDS ARGUMENT...: run a guest in QEMU with these arguments, for so many seconds at most.
# What it writes on its second serial line goes to OUTPUT, the kernel's log to OUTPUT.log.  No KVM: emulation is
# slower but the same everywhere.
#
# Once in some hundred times the emulator does not get the kernel as far as the guest's first process: a
# guest that is not there in a minute is started again.
emulate() {
	local output=$1 seconds=$2 emulator start
	shift 2
	for _ in 1 2 3; do
		rm -f "$output.log"
		# Without rdrand, programs that make a UUID wait seconds for random numbers.
		in_root timeout --foreground "$seconds" qemu-system-x86_64 \
			-accel tcg -cpu qemu64,+rdrand -nodefaults -no-user-config -display none -no-reboot \
			-serial "file:$output.log" -serial "file:$output" "$@" </dev/null &
		emulator=$!
		start=$SECONDS
		while ! is_up "$output" && kill -0 $emulator 2>/dev/null; do
			if [ $((SECONDS - start)) -gt $((60 * ${slowness:-1})) ]; then
				printf 'dm-switch: the guest for %s did not start\n' "$output" >&2
				kill $emulator
				break
			fi
			sleep 0.2
		done
		if wait $emulator; then
			return
		elif is_up "$output"; then
			return 1
		fi
	done
	return 1
}
