#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# deb.sh: build the Debian packages, into the top of the checkout, in a root of their own, and have lintian
# look at them.

. "$(dirname "$0")/lib.sh"
cd "$top"

packaging_packages=(
	build-essential ca-certificates cargo debhelper dh-dkms lintian rustc
)
packaging_root=$cache/packaging-root-$(printf '%s\n' "$suite" "${packaging_packages[@]}" | digest)

dir=

build() {
	mkdir "$dir/source"
	cp -r debian docs Kbuild LICENSE Makefile README.md COMPAT.md dm-switch.* helpers.c scripts tools "$dir/source"
	rm -f "$dir/source/dm-switch.ko"
	cd "$dir/source"
	root=$packaging_root in_root dpkg-buildpackage --build=binary --no-sign
}

check() {
	root=$packaging_root in_root lintian --info --fail-on error,warning "$dir"/*.changes
}

need_debian "$packaging_root" "packaging root" "${packaging_packages[@]}"
dir=$(mktemp -d "$cache/deb.XXXXXX")
trap 'rm -rf "$dir"' EXIT
step "building the packages" build
step "lintian" check
cp "$dir"/*.deb .
printf 'dm-switch: built %s\n' "$(cd "$dir" && echo *.deb)"
