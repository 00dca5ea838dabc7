# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# The series of kernels that the module supports, oldest first.

# shellcheck disable=SC2034 # used by the scripts that source this
series=(7.2 7.3)
