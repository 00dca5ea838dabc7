/* SPDX-License-Identifier: GPL-2.0 */
/* Who called a function that is probed at its begin. */
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/string.h>

/* Returns where a function that has just been called returns to. */
static unsigned long caller_of(struct pt_regs *regs)
{
#ifdef CONFIG_ARM64
	return procedure_link_pointer(regs);
#else
	return regs_get_kernel_stack_nth(regs, 0);
#endif
}

static bool called_by_dm_switch(struct pt_regs *regs)
{
	char caller[KSYM_SYMBOL_LEN];

	sprint_symbol(caller, caller_of(regs));
	return strstr(caller, "[dm_switch]");
}
