#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make dist; deb.sh, check-package.sh and faults.sh call it, too.
#
# dist.sh [DIR]: make dm-switch-VERSION.tar.gz, the source of this version, in DIR or at the top of the checkout.
# DKMS takes it as it is.  The same source makes the same file.

. "$(dirname "$0")/lib.sh"
cd "$top"

# source_files: the files of the source, less what was built.  What a tarball was unpacked to is no checkout.
source_files() {
	if [ -e .git ]; then
		git ls-files --cached --others --exclude-standard
	else
		find . -type f -o -type l
	fi
}

version=$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)
date=$(sed -n '/^ -- /{ s/.*>  //p; q }' debian/changelog)
name=dm-switch-$version
file=$(realpath "${1:-.}")/$name.tar.gz
source_files | LC_ALL=C sort | tar -c --no-recursion --verbatim-files-from --files-from=- --transform="flags=r;s|^\(\./\)\?|$name/|" \
	--format=gnu --mode='u=rwX,go=rX' --owner=0 --group=0 --numeric-owner --mtime="$date" | gzip -9n >"$file"
printf 'dm-switch: made %s\n' "$(basename "$file")" >&2
