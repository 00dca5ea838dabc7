/* SPDX-License-Identifier: GPL-2.0 */
/* Probes of functions that dm_switch calls, which may change where the kernel goes on. */
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

/* A probe that has one may change where the kernel goes on. */
static void after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

#define PROBE(function, handler) \
	{ .symbol_name = function, .pre_handler = handler, .post_handler = after }

static void unregister_all(struct kprobe *probes, int count)
{
	for (int i = 0; i < count; i++)
		if (probes[i].addr)
			unregister_kprobe(&probes[i]);
}

/* Registers the probes of those functions that this kernel has, or on an error none. */
static int register_all(struct kprobe *probes, int count)
{
	for (int i = 0; i < count; i++) {
		int err = register_kprobe(&probes[i]);

		if (err && err != -ENOENT) {
			unregister_all(probes, i);
			return err;
		}
	}
	return 0;
}
