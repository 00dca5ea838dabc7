// SPDX-License-Identifier: GPL-2.0
/*
 * Has allocations of dm_switch fail, for tests on a kernel that has no fault
 * injection.  In /sys/module/faults/parameters:
 *
 *   nth   write N to have the Nth allocation from now on fail; 0 once it has
 *   held  what dm_switch has allocated and not given back
 *
 * Only what dm_switch itself calls is looked at: the kernel's functions that it
 * calls get their own memory as ever.
 */
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>

static int nth;
module_param(nth, int, 0644);

static int held;
module_param(held, int, 0444);

static bool called_by_dm_switch(struct pt_regs *regs)
{
	char caller[KSYM_SYMBOL_LEN];

	sprint_symbol(caller, regs_get_kernel_stack_nth(regs, 0));
	return strstr(caller, "[dm_switch]");
}

/* Runs in the place of an allocator. */
static void *no_memory(void)
{
	return NULL;
}

/* Returns whether the allocator is not to run. */
static int allocate(struct pt_regs *regs, int count)
{
	if (nth && called_by_dm_switch(regs) && !--nth) {
		instruction_pointer_set(regs, (unsigned long)no_memory);
		return 1;
	}
	held += count;
	return 0;
}

static int on_alloc(struct kprobe *probe, struct pt_regs *regs)
{
	return called_by_dm_switch(regs) && allocate(regs, 1);
}

/*
 * Rust's allocators have one function for everything; a size of 0 frees.  What
 * is the last thing that a function does, as a free may be, is done by a jump:
 * its caller does not show.  But no other Rust runs in the guest.
 */
static int on_realloc(struct kprobe *probe, struct pt_regs *regs)
{
	bool old = regs_get_kernel_argument(regs, 0);
	bool size = regs_get_kernel_argument(regs, 1);

	if (size)
		return allocate(regs, !old);
	held -= old;
	return 0;
}

static int on_free(struct kprobe *probe, struct pt_regs *regs)
{
	if (called_by_dm_switch(regs))
		held--;
	return 0;
}

/* A probe that has one may change where the kernel goes on. */
static void after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

#define PROBE(function, handler) \
	{ .symbol_name = function, .pre_handler = handler, .post_handler = after }

static struct kprobe probes[] = {
	PROBE("rust_helper_krealloc_node_align", on_realloc),
	PROBE("rust_helper_kvrealloc_node_align", on_realloc),
	PROBE("pcpu_alloc_noprof", on_alloc),
	PROBE("free_percpu", on_free),
	PROBE("__alloc_skb", on_alloc),
	PROBE("netlink_unicast", on_free),
	PROBE("sk_skb_reason_drop", on_free),
};

static struct kprobe *all[ARRAY_SIZE(probes)];

static int __init faults_init(void)
{
	for (int i = 0; i < ARRAY_SIZE(probes); i++)
		all[i] = &probes[i];
	return register_kprobes(all, ARRAY_SIZE(all));
}
module_init(faults_init);

static void __exit faults_exit(void)
{
	unregister_kprobes(all, ARRAY_SIZE(all));
}
module_exit(faults_exit);

MODULE_DESCRIPTION("has allocations of dm_switch fail, for tests");
MODULE_LICENSE("GPL");
