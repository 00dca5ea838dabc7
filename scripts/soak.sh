#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make soak.
#
# soak.sh: have everything go on together over an array in QEMU, for TIME seconds of the environment, with an eye on
# the guest's memory, and print what was done.

. "$(dirname "$0")/guest.sh"

race=${TIME:-600}
show "soaking for $race s in QEMU" "$race" $(((race + 600) * slowness)) array soak
