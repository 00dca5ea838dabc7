#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A person runs this, as make demo or make demo-multipath.
#
# demo.sh NAME IMAGE: show the module and the tool at work, in QEMU: run tests/lib/NAME.sh in a guest that
# has IMAGE.

. "$(dirname "$0")/guest.sh"

show "running the demo in QEMU" 60 600 "$2" "$1"
