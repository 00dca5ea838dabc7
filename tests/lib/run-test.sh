# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs the test that the argument names, in the guest.

. /t/lib/test.sh
. "/t/sh/$1"
