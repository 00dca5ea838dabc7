# SPDX-License-Identifier: GPL-2.0
#
# Runs one test in the guest: the one that test= on the kernel's command line names.

test=$(sed 's/.*test=\([^ ]*\).*/\1/' /proc/cmdline)
. /t/lib/test.sh
. "/t/sh/$test"
check_log
echo "passed"
