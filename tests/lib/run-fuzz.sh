# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the fuzzer in the guest, for as long as limit= on the kernel's command line says.

. /t/lib/test.sh
. /t/lib/fuzz.sh
load
# shellcheck disable=SC2046 # words
fuzz $(parameter limit | tr , ' ')
unload
check_log
expect "memory that was lost" "" "$(leaks)"
