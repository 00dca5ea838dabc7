#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# flags.sh CONFIG RUSTC DIR: write into DIR how RUSTC is to compile for the kernel whose configuration is the file
# CONFIG: `flags`, its arguments, and for x86 `target.json`, the machine.  All that compilers and configurations
# differ in is here.
#
# What a configuration asks of compiled code is done, or refused by name: code that does not do it could bring the
# kernel down.  What the kernel does not ask of each function, as stack protectors and tracing, is left out, as in
# the kernel's own Rust.

set -eu

config=$1 rustc=$2 dir=$3

die() {
	echo "dm-switch: $*" >&2
	exit 1
}

# is_set NAME...: the configuration has one of these options.
is_set() {
	for name; do
		if grep -q "^CONFIG_$name=y\$" "$config"; then
			return
		fi
	done
	return 1
}

# value NAME: of an option.
value() {
	sed -n "s/^CONFIG_$1=//p" "$config"
}

# add FLAG...
add() {
	printf '%s\n' "$@" >>"$dir/flags.new"
}

# refuse NAME WHY: a kernel with this option.
refuse() {
	if is_set "$1"; then
		die "the kernel has CONFIG_$1: $2.  Build with the kernel's own crate (CRATE=kernel) in its build \
tree, or for a kernel without that option"
	fi
}

# older MINOR: the compiler is older than 1.MINOR.
older() {
	[ "$minor" -lt "$1" ]
}

# add_x86: the machine, with what x86 kernels ask.
add_x86() {
	features=
	if is_set MITIGATION_RETPOLINE RETPOLINE; then
		features=,+retpoline-external-thunk,+retpoline-indirect-branches,+retpoline-indirect-calls
	fi
	if is_set MITIGATION_SLS SLS; then
		features=$features,+harden-sls-ijmp,+harden-sls-ret
	fi
	# No flag sets these features.  The rest is the compiler's own description of a machine without floating
	# point registers, red zone and threads; what probes large stack frames there is not for the kernel's stacks.
	"$rustc" -Zunstable-options --print target-spec-json --target x86_64-unknown-none >"$dir/target.own" ||
		die "$version does not describe x86_64-unknown-none: install another one"
	sed -e "s/^\( *\"features\": \".*\)\"/\1$features\"/" -e 's/"kind": "inline.*"/"kind": "none"/' \
		"$dir/target.own" >"$dir/target.json"
	if ! grep -q "\"features\": \"[^\"]*+soft-float[^\"]*$features\"" "$dir/target.json"; then
		die "$version describes x86_64-unknown-none in another way than is known: install an older one"
	fi
	rm "$dir/target.own"
	add "--target=$dir/target.json" -Zunstable-options -Ccode-model=kernel -Zplt=y
	if is_set MITIGATION_RETHUNK RETHUNK; then
		add -Zfunction-return=thunk-extern
	fi
	if is_set X86_KERNEL_IBT; then
		add -Zcf-protection=branch
	fi
	if is_set X86_KERNEL_IBT MITIGATION_RETPOLINE RETPOLINE; then
		if older 93; then
			add -Zno-jump-tables
		else
			add -Cjump-tables=n
		fi
	fi
	if is_set CALL_PADDING; then
		padding=$(value FUNCTION_PADDING_BYTES)
		add "-Zpatchable-function-entry=$padding,$padding"
	fi
}

# add_arm64: the machine, with what arm64 kernels ask.
add_arm64() {
	refuse CPU_BIG_ENDIAN "big-endian machines were not tried"
	add --target=aarch64-unknown-none-softfloat
	if is_set ARM64_BTI_KERNEL; then
		add -Zbranch-protection=bti,pac-ret
	elif is_set ARM64_PTR_AUTH_KERNEL; then
		add -Zbranch-protection=pac-ret
	fi
}

# add_checks: instrumentation, where the kernel looks for faults.
add_checks() {
	if is_set KASAN_GENERIC; then
		threshold=0
		if is_set KASAN_INLINE; then
			threshold=10000
		fi
		add -Zsanitizer=kernel-address -Zsanitizer-recover=kernel-address \
			"-Cllvm-args=-asan-mapping-offset=$(value KASAN_SHADOW_OFFSET)" \
			"-Cllvm-args=-asan-instrumentation-with-call-threshold=$threshold" \
			"-Cllvm-args=-asan-stack=$(if is_set KASAN_STACK; then echo 1; else echo 0; fi)" \
			-Cllvm-args=-asan-globals=1
		# Elsewhere memcpy() and its kin look themselves.
		if is_set CC_HAS_KASAN_MEMINTRINSIC_PREFIX; then
			add -Cllvm-args=-asan-kernel-mem-intrinsic-prefix=1
		fi
	fi
	# The compiler knows no KCSAN.  The pass of LLVM's that clang uses for it is there all the same; it wants an
	# attribute on each function, which rustc sets for its own targets only.
	if is_set KCSAN; then
		add -Cpasses=tsan -Cllvm-args=-force-attribute=sanitize_thread \
			-Cllvm-args=-tsan-instrument-func-entry-exit=0 -Cllvm-args=-tsan-distinguish-volatile=1 \
			-Cllvm-args=-tsan-compound-read-before-write=1
	fi
	if is_set RUST_DEBUG_ASSERTIONS; then
		add -Cdebug-assertions=y
	fi
	# On where nobody chose, as is the kernel's default.
	if is_set RUST_OVERFLOW_CHECKS || ! is_set RUST; then
		add -Coverflow-checks=y
	fi
}

version=$("$rustc" --version) || die "there is no Rust compiler $rustc: install the packages rustc and rust-src"
minor=$(expr "$version" : 'rustc 1\.\([0-9]*\)') || minor=0
! older 85 || die "the Rust compiler is too old, $version: it takes 1.85 or newer"
# The compiler is none of make's jobs here.
unset MAKEFLAGS MFLAGS
export RUSTC_BOOTSTRAP=1

for option in CFI CFI_CLANG; do
	refuse "$option" "calls through pointers are checked (kCFI), which was not tried"
done
refuse LTO_CLANG "its modules are linked from LLVM's bitcode, which was not tried"
for option in RANDSTRUCT RANDSTRUCT_FULL RANDSTRUCT_PERFORMANCE GCC_PLUGIN_RANDSTRUCT; do
	refuse "$option" "the layout of its structures is random, and not known outside of C"
done
refuse SHADOW_CALL_STACK "return addresses are kept on a stack of their own, which was not tried"
refuse KASAN_SW_TAGS "pointers carry tags that the compiled code checks, which was not tried"
refuse KMSAN "it follows uninitialized memory through compiled code, which was not tried"

rm -f "$dir/flags.new"
add -Crelocation-model=static -Cpanic=abort -Cforce-unwind-tables=n -Ccodegen-units=1 -Cdebuginfo=0 \
	-Csymbol-mangling-version=v0 -Zfunction-sections=n
if is_set X86_64; then
	add_x86
elif is_set ARM64; then
	add_arm64
else
	die "the kernel is for another machine than x86_64 and arm64: only these were tried"
fi
if is_set CC_OPTIMIZE_FOR_SIZE; then
	add -Copt-level=s
else
	add -Copt-level=2
fi
if is_set FRAME_POINTER; then
	add -Cforce-frame-pointers=y
else
	add -Cforce-frame-pointers=n
fi
add_checks
mv "$dir/flags.new" "$dir/flags"
