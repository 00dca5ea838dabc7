# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# check.sh, demo.sh, fuzz.sh, measure.sh and soak.sh source this.
#
# Running things in QEMU, on the kernel that kernel.sh picks.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$top"

# The tool, and what else $programs names, is built while the kernel is prepared.
programs=("${programs[@]:-swupload}")
need_root
need_programs
beside scripts/tools.sh "${programs[@]}"
need_kernel

# What is random in tests is made from this: the same again with SEED.
# shellcheck disable=SC2034 # used by the scripts that source this
seed=${SEED:-$(od -A n -t u4 -N 4 /dev/urandom | tr -d ' ')}

# What runs the fuzzer again on this kernel, but for the script or the seed.
again="make fuzz${ARCH:+ ARCH=$ARCH} KVER=${KVER%%-"${KERNEL:-debug}"-*}${KERNEL:+ KERNEL=$KERNEL} CRATE=$CRATE"

# printed FILE: what a guest printed, with that command, and without what a terminal would take for something else.
printed() {
	tr -d '\r' <"$1" | cat -v | sed "s/make fuzz SCRIPT=/$again SCRIPT=/"
}

guest=$cache/guest-$KVER-$(cat - scripts/image.sh <<<"$root $programs_root $MODULES" | digest)

make_guest() {
	in_root "$top/scripts/image.sh" "$MODULES" "$programs_root" "$machine" "$1"
}

beside once "$guest" "making the guest's file system for $KVER" make_guest

# Where the modules are that tests load.
test_modules=$cache/modules-$KVER-$(cat - tests/modules/* <<<"$KDIR $BUILDER" | digest)

make_modules() {
	cp tests/modules/* "$1"
	in_builder make -s -C "$KDIR" "M=$1" modules
}

# need_test_modules: build these modules, unless they exist.
need_test_modules() {
	usually=15 once "$test_modules" "building the modules that tests load" make_modules
}

# memory is a guest's, in MiB, slowness the factor for all limits of time, and race the seconds that a race takes.  A
# kernel that looks for faults needs more of each.
memory=1500 slowness=1 race=1
if [ -n "${KERNEL:-}" ]; then
	memory=2500 slowness=8 race=${TIME:-60}
fi

# prepare_guest DIR [FILE...]: put into DIR what the guests of one run share, the module and the tool
# as they are now among it, and the files, which they find in /t.
prepare_guest() {
	local dir=$1 image
	shift
	mkdir -p "$dir/files/t" "$dir/files/usr/bin"
	# With KDIR, that would use the host's compilers.
	KDIR='' scripts/module.sh "$dir/files/t/dm-switch.ko"
	join "getting the tool and the guest's file system"
	cp "$SWUPLOAD" tools/dm-switch-volume "$dir/files/usr/bin"
	cp tests/lib/init "$dir/files"
	cp -r tests/sh tests/lib tests/vectors "$@" "$dir/files/t"
	(cd "$dir/files" && find . | in_root cpio --quiet -o -H newc) >"$dir/files.cpio"
	for image in base storage array; do
		cat "$guest/$image.cpio" "$dir/files.cpio" >"$dir/$image.initrd"
	done
}

# boot INITRD SECONDS PROCESSORS RUN OUTPUT [PARAMETER...]: run the script RUN in a guest with this file
# system and so many processors, for so many seconds at most, with more parameters for its kernel.  What
# it prints goes to OUTPUT, the kernel's log to OUTPUT.log.  "counted" processors are one, and a clock on
# which each of its instructions takes a nanosecond.  Only there the kernel protects its programs from each
# other's speculation, has security modules, and clears memory before it hands it out: that takes a third more,
# and hides what leaks.  There is room for all that the log gets.  A processor that this machine does not get to for
# half a minute has not stalled.
boot() {
	local stalls="watchdog_thresh=20 workqueue.watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=60"
	local initrd=$1 seconds=$2 processors=(-smp "$3") run=$4 output=$5 fast="mitigations=off init_on_alloc=0 lsm="
	if [ "$3" = counted ]; then
		processors=(-smp 1 -icount "shift=0,sleep=off") fast=
	fi
	shift 5
	emulate "$output" "$seconds" "${processors[@]}" -m "$memory" -kernel "$VMLINUZ" -initrd "$initrd" \
		-drive "file=$guest/names.img,format=raw,if=virtio,readonly=on" \
		-append "console=${serial}0 output=${serial}1 rdinit=/init panic=-1 oops=panic log_buf_len=4M $stalls $fast race=$race run=$run $*"
}

# show TEXT USUALLY SECONDS IMAGE NAME: print TEXT, run tests/lib/NAME.sh in a guest of two processors that has IMAGE,
# and print its output.  It usually takes USUALLY seconds, and is ended after SECONDS seconds.
show() {
	local text=$1 seconds=$3 image=$4 name=$5
	dir=$(mktemp -d "$cache/$name.XXXXXX")
	trap 'rm -rf "$dir"' EXIT
	prepare_guest "$dir"
	usually=$2 step "$text" attempt boot "$dir/$image.initrd" "$seconds" 2 "/t/lib/$name.sh" "$dir/output"
	sed '/^dm-switch guest: /d' "$dir/output"
	if [ "$(tail -n 1 "$dir/output")" != "dm-switch guest: 0" ]; then
		tail -n 20 "$dir/output.log" >&2
		die "$text: failed; above is the end of the guest's kernel log"
	fi
}

# attempt COMMAND [ARGUMENT...]: run a command of which something else says whether it failed.
attempt() {
	"$@" || :
}
