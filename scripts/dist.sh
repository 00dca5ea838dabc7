#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make dist; deb.sh, check-package.sh and faults.sh call it, too.
#
# dist.sh [DIR]: make dm-switch-VERSION.tar.gz, the source of this version, in DIR or at the top of the checkout.
# DKMS takes it as it is.  The same source makes the same file.

. "$(dirname "$0")/lib.sh"
cd "$top"

# source_files: the files of the source: of a checkout, those that git has or would add, or else, where a tarball was
# unpacked, all that .gitignore does not name.
source_files() {
	if [ -e .git ]; then
		git ls-files --cached --others --exclude-standard
	else
		ignored=$(sed -E 's,\.,\\.,g; s,\*,[^/]*,g; s,/$,/.*,; s,^([^/]),.*/\1,; s,^/,\\./,' .gitignore)
		find . -type f -o -type l | grep -vxE "$ignored"
	fi
}

version=$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)
date=$(sed -n '/^ -- /{ s/.*>  //p; q }' debian/changelog)
name=dm-switch-$version
file=$(realpath "${1:-.}")/$name.tar.gz
source_files | LC_ALL=C sort | tar -c --no-recursion --verbatim-files-from --files-from=- --transform="flags=r;s|^\(\./\)\?|$name/|" \
	--format=gnu --mode='u=rwX,go=rX' --owner=0 --group=0 --numeric-owner --mtime="$date" | gzip -9n >"$file"
printf 'dm-switch: made %s\n' "$(basename "$file")" >&2
