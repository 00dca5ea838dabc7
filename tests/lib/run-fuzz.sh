# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the fuzzer in the guest, for as long as limit= on the kernel's command line says.

. /t/lib/test.sh
. /t/lib/fuzz.sh
load
check_log
# shellcheck disable=SC2046 # words
fuzz $(parameter limit | tr , ' ')
# What it had until now the fuzzer has read.
begin_log
unload
check_leaks
check_log
