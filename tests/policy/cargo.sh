#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tests/host, scripts/lint.sh and scripts/mutants.sh run this in the build root.
#
# cargo.sh COMMAND [ARGUMENT...]: run a command of cargo's on the package in this directory.  With KIND in the
# environment, that is built elsewhere than without it.
#
# The crate is dm-switch.rs, the same file of which the module is made. That includes the bindings.rs beside it, and the
# host has another one: so the package is built in a directory of the cache, in which both are.

set -eu

top=$(realpath "$(dirname "$0")/../..")
dir=$(realpath "$CARGO_HOME/..")/policy${KIND:+-$KIND}
mkdir -p "$dir"
exec 9>"$dir.lock"
flock 9

# put FILE NAME: copy a file of the checkout, unless it is there already. What is older than what was built of it is not
# compiled again.
put() {
	if ! cmp -s "$top/$1" "$dir/$2"; then
		mkdir -p "$(dirname "$dir/$2")"
		cp "$top/$1" "$dir/$2"
	fi
}

# What was removed from the checkout must not be compiled, either.
find "$dir" -path "$dir/target" -prune -o -name '*.rs' -print | while read -r file; do
	[ -e "$top/${file#"$dir/"}" ] || [ "$file" = "$dir/bindings.rs" ] || rm "$file"
done
for file in $(cd "$top" && find dm-switch.rs compat tests/fuzz tests/policy -name '*.rs' -o -name Cargo.toml); do
	put "$file" "$file"
done
put tests/policy/bindings.rs bindings.rs
put tests/policy/Cargo.toml Cargo.toml
ln -sf "$top/tests/policy/Cargo.lock" "$dir"
cd "$dir"

# What the kernel's build tells the compiler of the crate.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg host -Zcrate-attr=feature(used_with_arg) -Astable-features ${RUSTFLAGS:-}"
# With a target, build scripts and procedural macros are compiled without these flags.
export CARGO_BUILD_TARGET=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR="$dir/target"
exec cargo "$@"
