# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs one test in the guest, the one that the argument names.

. /t/lib/test.sh
. "/t/sh/$1"
