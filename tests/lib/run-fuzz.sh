# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the fuzzer in the guest, with the arguments fuzz= of the kernel's command line, and with the module's counters if
# it is built with them.

. /t/lib/test.sh
. /t/lib/fuzz.sh
[ ! -e /t/coverage.ko ] || insmod /t/coverage.ko
load
check_log
# shellcheck disable=SC2046 # words
fuzz $(parameter fuzz | tr + ' ')
# The fuzzer has read the log so far.
begin_log
unload
check_leaks
check_log
