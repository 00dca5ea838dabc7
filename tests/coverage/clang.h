/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Comes first where clang compiles helpers.c for a kernel that gcc is configured for: what clang has not, or not well
 * enough, by arch/x86/Kconfig.
 */
#include <linux/kconfig.h>

#undef CONFIG_CC_HAS_NAMED_AS
#undef CONFIG_USE_X86_SEG_SUPPORT
