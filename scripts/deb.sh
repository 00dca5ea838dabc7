#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make deb; check-package.sh calls it, too.
#
# deb.sh: build the Debian packages, into the top of the checkout, and have lintian look at them.
#
# They are built in a Debian 12, with the Rust of its security archive: a program that is linked with that C library
# runs on every later Debian, too.  lintian is Debian 13's.

. "$(dirname "$0")/lib.sh"
cd "$top"

packaging_packages=(
	build-essential ca-certificates cargo-web debhelper dh-dkms rustc-web
)
packaging_root=$cache/packaging-root-bookworm-$(printf '%s\n' "${packaging_packages[@]}" | digest)

# in_root wants the certificates.
lintian_packages=(ca-certificates lintian)
lintian_root=$cache/lintian-root-$(printf '%s\n' "$suite" "${lintian_packages[@]}" | digest)

dir=

build() {
	scripts/dist.sh "$dir"
	cd "$dir"
	tar -xf dm-switch-*.tar.gz
	cd dm-switch-*/
	root=$packaging_root in_root dpkg-buildpackage --build=binary --no-sign
}

check() {
	root=$lintian_root in_root lintian --info --fail-on error,warning "$dir"/*.changes
}

suite=bookworm usually=230 need_debian "$packaging_root" "packaging root" "${packaging_packages[@]}"
usually=230 need_debian "$lintian_root" "root with lintian" "${lintian_packages[@]}"
dir=$(mktemp -d "$cache/deb.XXXXXX")
trap 'rm -rf "$dir"' EXIT
step "building the packages" build
step "lintian" check
cp "$dir"/*.deb .
printf 'dm-switch: built %s\n' "$(cd "$dir" && echo *.deb)"
