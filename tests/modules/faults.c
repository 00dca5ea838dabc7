// SPDX-License-Identifier: GPL-2.0
/*
 * Has allocations of dm_switch fail, for tests on a kernel that has no fault
 * injection.  In /sys/module/faults/parameters:
 *
 *   nth   write N to have the Nth allocation from now on fail; 0 once it has
 *   kill  write Y to have the process killed there instead, with its memory
 *   held  what dm_switch has allocated and not given back
 *   call  write the name of a function that has on_call or on_call_for_memory
 *         below, or its beginning, to have the next call of it fail; empty
 *         once it has
 *   error the number that such a call returns, -12 at first
 *
 * Only what dm_switch itself calls is looked at: the kernel's functions that it
 * calls get their own memory as ever.
 */
#include <linux/hash.h>
#include <linux/irq_work.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "probe.h"

static int nth;
module_param(nth, int, 0644);

static bool kill;
module_param(kill, bool, 0644);

static int held;
module_param(held, int, 0444);

static char call[32];
module_param_string(call, call, sizeof(call), 0644);

static int error = -ENOMEM;
module_param(error, int, 0644);

static struct task_struct *killed;

static void kill_process(struct irq_work *work)
{
	send_sig(SIGKILL, killed, 1);
}

/* Runs once the probe has returned: a signal has a lock, which a probe must not take. */
static DEFINE_IRQ_WORK(killing, kill_process);

/* Returns whether this allocation fails, or kills the process if that is wanted instead. */
static bool fails(void)
{
	if (!nth || --nth)
		return false;
	if (kill) {
		killed = current;
		irq_work_queue(&killing);
	}
	return !kill;
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
 * has from kmalloc() and kvmalloc(), each in one of the SLOTS from its hash on.
 */
#define MEMORY_BITS 14
#define SLOTS 32
static void *memory[(1 << MEMORY_BITS) + SLOTS];

static void *remember(void *address)
{
	void **slots = &memory[hash_ptr(address, MEMORY_BITS)];

	for (int i = 0; address && i < SLOTS; i++) {
		if (!cmpxchg(&slots[i], NULL, address)) {
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
	void **slots = &memory[hash_ptr(address, MEMORY_BITS)];

	for (int i = 0; address && i < SLOTS; i++)
		if (READ_ONCE(slots[i]) == address && cmpxchg(&slots[i], address, NULL) == address)
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

/* Runs in the place of a function that returns an error, or an address that may be one. */
static long failed_call(void)
{
	return error;
}

static int fail_call(struct kprobe *probe, struct pt_regs *regs, unsigned long function)
{
	if (!*call || !strstarts(probe->symbol_name, call) || !called_by_dm_switch(regs))
		return 0;
	*call = '\0';
	instruction_pointer_set(regs, function);
	return 1;
}

static int on_call(struct kprobe *probe, struct pt_regs *regs)
{
	return fail_call(probe, regs, (unsigned long)failed_call);
}

/* The same for a function that returns NULL. */
static int on_call_for_memory(struct kprobe *probe, struct pt_regs *regs)
{
	return fail_call(probe, regs, (unsigned long)no_memory);
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
	PROBE("alloc_workqueue", on_call_for_memory),
	PROBE("alloc_workqueue_noprof", on_call_for_memory),
	PROBE("anon_inode_getfile", on_call),
	PROBE("dm_get_device", on_call),
	PROBE("dm_register_target", on_call),
	PROBE("genl_register_family", on_call),
	PROBE("genlmsg_put", on_call_for_memory),
	PROBE("nla_put", on_call),
	PROBE("sysfs_create_file_ns", on_call),
};

static int __init faults_init(void)
{
	return register_all(probes, ARRAY_SIZE(probes));
}
module_init(faults_init);

static void __exit faults_exit(void)
{
	unregister_all(probes, ARRAY_SIZE(probes));
	irq_work_sync(&killing);
}
module_exit(faults_exit);

MODULE_DESCRIPTION("has allocations of dm_switch fail, for tests");
MODULE_LICENSE("GPL");
