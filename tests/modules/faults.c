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
#include <linux/module.h>
#include <linux/slab.h>

#include "probe.h"

static int nth;
module_param(nth, int, 0644);

static int held;
module_param(held, int, 0444);

/* Whether this allocation is the one that is to fail. */
static bool fails(void)
{
	return nth && !--nth;
}

/* Runs in the place of an allocator. */
static void *no_memory(void)
{
	return NULL;
}

/* Returns whether the allocator is not to run. */
static int allocate(struct pt_regs *regs, int count)
{
	if (fails()) {
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

static int on_free(struct kprobe *probe, struct pt_regs *regs)
{
	if (called_by_dm_switch(regs))
		held--;
	return 0;
}

/*
 * The kernel's Rust allocators have one function for everything; a size of 0
 * frees.  A function that frees last of all does so by a jump, and then the
 * caller of the free is the caller of that function.  But no other Rust runs in
 * the guest.
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

/*
 * kfree() and kvfree(), which the module calls where it is built with the
 * stand-in for the crate kernel, are called by all of the kernel, and by jumps,
 * too.  So what they get is looked up in here: the addresses of what dm_switch
 * has from kmalloc() and kvmalloc().
 */
static void *memory[256];

static void *remember(void *address)
{
	for (int i = 0; address && i < ARRAY_SIZE(memory); i++) {
		if (!cmpxchg(&memory[i], NULL, address)) {
			held++;
			return address;
		}
	}
	WARN(address, "faults: too many allocations\n");
	return address;
}

static int on_kfree(struct kprobe *probe, struct pt_regs *regs)
{
	void *address = (void *)regs_get_kernel_argument(regs, 0);

	for (int i = 0; address && i < ARRAY_SIZE(memory); i++)
		if (READ_ONCE(memory[i]) == address && cmpxchg(&memory[i], address, NULL) == address)
			held--;
	return 0;
}

/* Run in the place of kmalloc() and kvmalloc(), which the module calls with GFP_KERNEL only. */
static void *kmalloc_here(size_t size)
{
	return fails() ? NULL : remember(kmalloc(size, GFP_KERNEL));
}

static void *kvmalloc_here(size_t size)
{
	return fails() ? NULL : remember(kvmalloc(size, GFP_KERNEL));
}

static int on_kmalloc(struct kprobe *probe, struct pt_regs *regs)
{
	if (!called_by_dm_switch(regs))
		return 0;
	instruction_pointer_set(regs, (unsigned long)kmalloc_here);
	return 1;
}

static int on_kvmalloc(struct kprobe *probe, struct pt_regs *regs)
{
	if (!called_by_dm_switch(regs))
		return 0;
	instruction_pointer_set(regs, (unsigned long)kvmalloc_here);
	return 1;
}

/* No kernel has all of these. */
static struct kprobe probes[] = {
	PROBE("rust_helper_krealloc_node_align", on_realloc),
	PROBE("rust_helper_kvrealloc_node_align", on_realloc),
	/* Up to 6.9, and later. */
	PROBE("__kmalloc", on_kmalloc),
	PROBE("__kmalloc_noprof", on_kmalloc),
	PROBE("kvmalloc_node", on_kvmalloc),
	PROBE("__kvmalloc_node_noprof", on_kvmalloc),
	PROBE("kfree", on_kfree),
	PROBE("kvfree", on_kfree),
	PROBE("__alloc_percpu", on_alloc),
	PROBE("pcpu_alloc_noprof", on_alloc),
	PROBE("free_percpu", on_free),
	PROBE("__alloc_skb", on_alloc),
	PROBE("netlink_unicast", on_free),
	/* Up to 6.10, and later. */
	PROBE("kfree_skb_reason", on_free),
	PROBE("sk_skb_reason_drop", on_free),
};

static int __init faults_init(void)
{
	return register_all(probes, ARRAY_SIZE(probes));
}
module_init(faults_init);

static void __exit faults_exit(void)
{
	unregister_all(probes, ARRAY_SIZE(probes));
}
module_exit(faults_exit);

MODULE_DESCRIPTION("has allocations of dm_switch fail, for tests");
MODULE_LICENSE("GPL");
