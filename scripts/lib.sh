# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# The other scripts source this, but dkms.sh, image.sh, metadata.sh and series.sh.
#
# What every script of the host shares: the cache, and a build root in it, a small Debian that has
# the compilers, QEMU and the linters in the versions that the kernel asks for.  Everything that is
# built is built in there, so the host itself needs no more than $host_packages.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-~/.cache}/dm-switch

host_packages=(mmdebstrap bubblewrap ca-certificates debian-archive-keyring)

# The host's architecture, as Debian names it, and the guest's, for which the module and the tools are built.  machine is
# QEMU's name of the guest's, and the compilers' names begin with it.  serial is what the kernel calls its serial lines,
# and hardware are QEMU's options for it.
host_architecture=amd64
architecture=${ARCH:-amd64}
# shellcheck disable=SC2034 # used by the scripts that source this
case $architecture in
amd64)
	# Without rdrand, programs that make a UUID wait seconds for random numbers.
	machine=x86_64 serial=ttyS
	hardware=(-cpu "qemu64,+rdrand")
	;;
arm64)
	# A processor with pointer authentication, which Debian's kernels use.
	machine=aarch64 serial=ttyAMA
	hardware=(-machine virt -cpu "max,pauth-impdef=on")
	;;
*)
	printf 'dm-switch: ARCH is amd64 or arm64, not %s\n' "$ARCH" >&2
	exit 1
	;;
esac
# The makefiles of a kernel read ARCH, too, and have other names.
if [ "$architecture" = "$host_architecture" ]; then
	unset ARCH
fi

suite=trixie
root_packages=(
	# a kernel's Rust metadata and a module; gcc-12 is the compiler of Linux 6.1
	bc bindgen binutils bison cpio flex gcc gcc-12 gcc-14 kmod libc6-dev libclang-19-dev libdw-dev
	libelf-dev libssl-dev make pahole python3-minimal rust-src rustc xz-utils zlib1g-dev
	# swupload
	ca-certificates cargo
	# the guest and its tests
	busybox-static coreutils dmsetup e2fsprogs fio open-iscsi qemu-system-x86 socat xfsprogs xxd
	# the host's tests and the linters
	g++ mandoc rust-clippy rustfmt shellcheck
)
if [ -n "${KERNEL:-}${COVERAGE:-}" ]; then
	# a kernel of our own, and a module that counts
	root_packages+=(clang-19 lld-19 llvm-19)
fi
if [ "$architecture" = arm64 ]; then
	# a module and swupload, and the guest's emulator; gcc-12 as above
	root_packages+=(
		gcc-12-aarch64-linux-gnu gcc-14-aarch64-linux-gnu gcc-aarch64-linux-gnu libc6-dev-arm64-cross
		libstd-rust-dev:arm64 qemu-system-arm
	)
fi

# The packages that the guest's programs are from, where the build root's own are not for it.
guest_packages=(busybox-static coreutils dash dmsetup e2fsprogs fio open-iscsi socat util-linux xfsprogs xxd)

# What a module takes on Debian 12, with the newest Rust that is there, and what in_root wants.
bookworm_packages=(
	bindgen binutils ca-certificates gcc gcc-12 kmod libc6-dev libclang-14-dev libelf-dev make pahole
	rust-web-src rustc-web xz-utils zlib1g-dev
)

# What draws the benchmarks' chart, the pictures of docs/ and the pages of make coverage. in_root wants the certificates.
drawing_packages=(ca-certificates gnuplot-nox graphviz lcov)

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

# Where the one with Debian 12's compilers is.
bookworm_root=$cache/root-bookworm-$(printf '%s\n' "${bookworm_packages[@]}" | digest)

# Where the one that draws is.
drawing_root=$cache/drawing-root-$(printf '%s\n' "$suite" "${drawing_packages[@]}" | digest)

# Where the guest's programs are: in the build root itself, or in a directory with $guest_packages.
programs_root=
if [ "$architecture" != "$host_architecture" ]; then
	programs_root=$cache/programs-$(printf '%s\n' "$suite" "$architecture" "${guest_packages[@]}" | digest)
fi

# built NAME SOURCE...: the directory in the cache of what tools.sh builds from these sources.
built() {
	local key
	key=$(cat "${@:2}" "$top"/{tools/.cargo/config.toml,scripts/tools.sh} | digest) || return
	printf '%s\n' "$cache/$1-${root##*-}-$key"
}

# Where swupload, the fuzzer, and the program that folds the counters of make coverage are.
# shellcheck disable=SC2034 # used by the scripts that source this, as the next two are
tools=$(built tools "$top"/tools/{swupload.rs,Cargo.toml,Cargo.lock})
# shellcheck disable=SC2034
fuzzer=$(built fuzzer "$top"/tests/fuzz/{*.rs,Cargo.toml,Cargo.lock})
# shellcheck disable=SC2034
fold=$(built fold "$top"/tests/coverage/{fold.rs,Cargo.toml,Cargo.lock})

# on_terminal: standard error is a terminal that can write over a line.
on_terminal() {
	[ -t 2 ] && [ "${TERM:-dumb}" != dumb ]
}

# tick TEXT PROCESS: write a line with TEXT and the elapsed seconds, again every second, while the process exists.
tick() {
	local start=$SECONDS
	while kill -0 "$2" 2>/dev/null; do
		# At most 80 columns: a terminal cannot write over a line that it wrapped.
		printf '\r\033[Kdm-switch: %.40s ... %d s%s' "$1" $((SECONDS - start)) \
			"${usually:+ (usually $usually s)}" >&2
		sleep 1
	done
}

# start_clock TEXT: on a terminal, show TEXT and the elapsed seconds until stop_clock.  The variable usually, if it is
# not empty, has the seconds that this takes on two processors, in a first run.
clock='' usually=''
start_clock() {
	if on_terminal; then
		tick "$1" "$BASHPID" >/dev/null &
		clock=$!
		# wait and jobs are for other jobs.
		disown "$clock"
	fi
}

# clear_clock: erase the clock's line, before something else is printed.
clear_clock() {
	[ -z "$clock" ] || printf '\r\033[K' >&2
}

stop_clock() {
	[ -z "$clock" ] || kill "$clock" 2>/dev/null || :
	clear_clock
	clock=
}

# timed LOG TEXT COMMAND [ARGUMENT...]: run a command with its output in LOG, and set status to its exit status.  Print
# TEXT and the seconds that it took; a log has another line, when it begins.
timed() {
	local log=$1 text=$2 start=$SECONDS
	shift 2
	on_terminal || printf 'dm-switch: %s ...\n' "$text" >&2
	start_clock "$text"
	set +e
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null
	status=$?
	set -e
	stop_clock
	if [ "$status" -eq 0 ]; then
		printf 'dm-switch: %s ... %d s\n' "$text" $((SECONDS - start)) >&2
	else
		printf 'dm-switch: %s ... failed:\n' "$text" >&2
	fi
}

# step TEXT COMMAND [ARGUMENT...]: run a command that takes long, timed.  If it fails, print the end of its output, and
# exit.
step() {
	local log status
	log=$(mktemp)
	timed "$log" "$@"
	if [ "$status" -ne 0 ]; then
		tail -n 40 "$log" >&2
		rm -f "$log"
		exit 1
	fi
	rm -f "$log"
}

# lock FD TEXT: lock the file that is open there; say TEXT where that has to wait for another run.
lock() {
	if ! flock -n "$1"; then
		printf 'dm-switch: %s\n' "$2" >&2
		usually='' start_clock "waiting"
		flock "$1"
		stop_clock
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

# beside COMMAND [ARGUMENT...]: start a command in the background; join prints its standard error.
beside_jobs=() beside_logs=()
beside() {
	beside_logs+=("$(mktemp)")
	"$@" 2>"${beside_logs[-1]}" &
	beside_jobs+=($!)
}

# join TEXT: wait for what was started so, with TEXT on a terminal, and print its log, without the lines that say what
# begins.  If any of it failed, exit.
join() {
	local job failed=0
	start_clock "$1"
	for job in "${beside_jobs[@]}"; do
		wait "$job" || failed=1
	done
	stop_clock
	for job in "${!beside_jobs[@]}"; do
		sed '/^dm-switch: .* \.\.\.$/d' "${beside_logs[job]}" >&2
		rm "${beside_logs[job]}"
	done
	[ "$failed" -eq 0 ] || exit 1
	beside_jobs=() beside_logs=()
}

# in_root COMMAND [ARGUMENT...]: run a command in the build root, or in another one that is in $root.  The cache
# and the checkout have the same paths in there as outside.
in_root() {
	bwrap --ro-bind "$root/usr" /usr --ro-bind "$root/etc" /etc --bind "$root/var" /var \
		--symlink usr/bin /bin --symlink usr/sbin /sbin \
		--symlink usr/lib /lib --symlink usr/lib64 /lib64 \
		--proc /proc --dev /dev --tmpfs /tmp --bind "$cache" "$cache" --bind "$top" "$top" \
		--ro-bind-try /etc/resolv.conf /etc/resolv.conf \
		--ro-bind-try /etc/ssl/certs /etc/ssl/certs \
		--clearenv --setenv PATH /usr/sbin:/usr/bin --setenv HOME /tmp --setenv LC_ALL C.UTF-8 \
		--setenv CARGO_HOME "$cache/cargo" \
		--unshare-pid --die-with-parent --chdir "$PWD" "$@"
}

# archive PATTERN: the address of the first archive that the host's apt is set up with whose release is like that.
archive() {
	local format
	# shellcheck disable=SC2016 # apt's own variables
	format='$(RELEASE) $(COMPONENT) $(REPO_URI)'
	apt-get indextargets --no-release-info --format "$format" 'Created-By: Packages' |
		awk -v pattern="$1" '$1 ~ pattern && $2 == "main" && !found { print $3; found = 1 }'
}

# sources SUITE: apt's sources for a suite: trixie, or trixie-backports, which is that and more.  They are the archives
# that the host's apt uses.
sources() {
	local base=${1%-backports} main security
	main=$(archive '^[^-/]*$')
	[ -n "$main" ] || die "apt has no Debian archive set up: see /etc/apt/sources.list.d"
	security=$(archive '^[^-/]*-security$')
	printf 'deb %s %s main\n' "$main" "$base" "$main" "$base-updates"
	if [ -n "$security" ]; then
		printf 'deb %s %s main\n' "$security" "$base-security"
	fi
	if [ "$1" != "$base" ]; then
		printf 'deb %s %s main\n' "$main" "$1"
	fi
}

# debian VARIANT ARCHITECTURES PACKAGE... DIR: make a Debian with these packages, in a variant that mmdebstrap knows.
debian() {
	local dir=${*: -1}
	sources "$suite-backports" >"$dir.sources"
	apt-config dump --format '%f "%v";%n' Acquire | { grep -i '::proxy ' || :; } >"$dir.proxy"
	mmdebstrap --variant="$1" --architectures="$2" --aptopt='APT::Install-Recommends "false"' \
		--aptopt="$dir.proxy" --dpkgopt=force-unsafe-io --include="${*:3:$#-3}" "$suite" "$dir" - <"$dir.sources"
	rm -f "$dir.sources" "$dir.proxy"
}

# make_root PACKAGE... DIR: make a Debian with these packages, of the host's architecture, or of the one that their names
# end in.
make_root() {
	local architectures=$host_architecture
	if [[ "$*" == *:"$architecture"* ]]; then
		architectures+=,$architecture
	fi
	debian apt "$architectures" "$@"
}

# make_programs DIR: unpack the guest's packages; the host cannot run what is in them.
make_programs() {
	debian extract "$architecture" "${guest_packages[@]}" "$1"
}

install_host_packages() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get update
	apt-get install -y --no-install-recommends "${host_packages[@]}"
}

# need_debian DIR WHAT PACKAGE...: make WHAT in DIR, a Debian with these packages, unless it exists.
need_debian() {
	local dir=$1 what=$2
	shift 2
	[ "$(dpkg --print-architecture)" = "$host_architecture" ] || die "only hosts of $host_architecture are supported"
	if [ ! -e "$dir/.whole" ] || ! command -v bwrap >/dev/null; then
		[ "$(id -u)" = 0 ] ||
			die "the first run installs ${host_packages[*]} and a $what: run it as root"
		# apt itself does not wait for another run's.
		(
			flock 9
			usually=15 step "installing ${host_packages[*]}" install_host_packages
		) 9>/run/lock/dm-switch
	fi
	once "$dir" "making the $what (Debian $suite)" make_root "$@"
}

# need_root: make the build root, unless it exists.
need_root() {
	local what="build root" usually=80
	if [ "$architecture" != "$host_architecture" ]; then
		what="build root for $architecture" usually=180
	fi
	need_debian "$root" "$what" "${root_packages[@]}"
}

# need_drawing_root: make the root that draws, if it is not there.
need_drawing_root() {
	usually=65 need_debian "$drawing_root" "root that draws" "${drawing_packages[@]}"
}

# need_programs: get the guest's programs, unless they exist.
need_programs() {
	if [ -n "$programs_root" ]; then
		usually=20 once "$programs_root" "unpacking the guest's programs for $architecture" make_programs
	fi
}

# need_builder SUITE: make the root with the compilers of this suite, if it is not there, and set BUILDER to it.
need_builder() {
	case $1 in
	trixie)
		need_root
		BUILDER=$root
		;;
	bookworm)
		suite=bookworm usually=80 need_debian "$bookworm_root" "build root" "${bookworm_packages[@]}"
		BUILDER=$bookworm_root
		;;
	esac
}

# in_builder COMMAND [ARGUMENT...]: run a command in the root in which modules for the kernel are built.
in_builder() {
	local variables=()
	if [ "$architecture" != "$host_architecture" ]; then
		# Not all headers say by themselves that they take another machine's compilers.
		variables+=("CROSS_COMPILE=$machine-linux-gnu-")
	fi
	root=$BUILDER in_root env "${variables[@]}" "$@"
}

# need_kernel: get the kernel, unless it exists, and set what kernel.sh prints.
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
# guest that is not there in a minute, or $slowness minutes, is started again.
emulate() {
	local output=$1 seconds=$2 emulator start status
	shift 2
	for _ in 1 2 3; do
		rm -f "$output.log"
		in_root timeout --foreground "$seconds" "qemu-system-$machine" \
			-accel tcg "${hardware[@]}" -nodefaults -no-user-config -display none -no-reboot \
			-serial "file:$output.log" -serial "file:$output" "$@" </dev/null &
		emulator=$!
		trap 'kill "$emulator"; exit 1' TERM
		start=$SECONDS
		while ! is_up "$output" && kill -0 $emulator 2>/dev/null; do
			if [ $((SECONDS - start)) -gt $((60 * ${slowness:-1})) ]; then
				printf 'dm-switch: the guest for %s did not start\n' "$output" >&2
				kill $emulator
				break
			fi
			sleep 0.2
		done
		status=0
		wait $emulator || status=$?
		trap - TERM
		if [ $status -eq 0 ]; then
			return
		elif is_up "$output"; then
			return 1
		fi
	done
	return 1
}
