# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the fuzzer in the guest, with the limit= of the kernel's command line.

. /t/lib/test.sh
. /t/lib/fuzz.sh
load
check_log
# shellcheck disable=SC2046 # words
fuzz $(parameter limit | tr , ' ')
# The fuzzer has read the log so far.
begin_log
unload
check_leaks
check_log
