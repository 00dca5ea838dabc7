// SPDX-License-Identifier: GPL-2.0
/*
 * Makes each allocation of dm_switch that may do I/O read a sector of a device
 * first, as reclaim may have to, and wait for it.
 *
 *   device  the path of the device, which is open until the module goes
 *   skip    how many more of these allocations do not read
 *   reads   how many allocations have read
 *
 * One thread at a time may allocate.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/sched/mm.h>

#include "probe.h"

static char *device;
module_param(device, charp, 0444);

static int skip;
module_param(skip, int, 0644);

static int reads;
module_param(reads, int, 0444);

static struct file *file;
static struct page *page;

/* The allocator that the probe stopped, and the thread that goes on with it. */
static long (*allocator)(long, long, long, long, long, long);
static struct task_struct *allocating;

static void read_device(void)
{
	struct bio_vec vec;
	struct bio bio;

	bio_init(&bio, I_BDEV(file->f_mapping->host), &vec, 1, REQ_OP_READ);
	__bio_add_page(&bio, page, SECTOR_SIZE, 0);
	submit_bio_wait(&bio);
	bio_uninit(&bio);
	reads++;
}

/* Runs in the place of an allocator, with its arguments. */
static long read_and_allocate(long a, long b, long c, long d, long e, long f)
{
	long memory;

	read_device();
	allocating = current;
	memory = allocator(a, b, c, d, e, f);
	allocating = NULL;
	return memory;
}

static int allocate(struct kprobe *probe, struct pt_regs *regs)
{
	if (allocating == current || !(current_gfp_context(GFP_KERNEL) & __GFP_IO))
		return 0;
	if (skip > 0) {
		skip--;
		return 0;
	}
	allocator = (void *)probe->addr;
	instruction_pointer_set(regs, (unsigned long)read_and_allocate);
	return 1;
}

static int on_alloc(struct kprobe *probe, struct pt_regs *regs)
{
	return called_by_dm_switch(regs) && allocate(probe, regs);
}

/* The kernel's Rust allocators are called by nothing else in the guest.  A size of 0 frees. */
static int on_realloc(struct kprobe *probe, struct pt_regs *regs)
{
	return regs_get_kernel_argument(regs, 1) && allocate(probe, regs);
}

/* No kernel has all of these. */
static struct kprobe probes[] = {
	PROBE("rust_helper_krealloc_node_align", on_realloc),
	PROBE("rust_helper_kvrealloc_node_align", on_realloc),
	/* Up to 6.9, and later. */
	PROBE("__kmalloc", on_alloc),
	PROBE("__kmalloc_noprof", on_alloc),
	PROBE("kvmalloc_node", on_alloc),
	PROBE("__kvmalloc_node_noprof", on_alloc),
	PROBE("__alloc_percpu", on_alloc),
	PROBE("pcpu_alloc_noprof", on_alloc),
};

static void close_device(void)
{
	fput(file);
	__free_page(page);
}

static int __init reclaim_init(void)
{
	int err;

	page = alloc_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	file = filp_open(device, O_RDONLY | O_LARGEFILE, 0);
	if (IS_ERR(file)) {
		__free_page(page);
		return PTR_ERR(file);
	}
	err = register_all(probes, ARRAY_SIZE(probes));
	if (err)
		close_device();
	return err;
}
module_init(reclaim_init);

static void __exit reclaim_exit(void)
{
	unregister_all(probes, ARRAY_SIZE(probes));
	close_device();
}
module_exit(reclaim_exit);

MODULE_DESCRIPTION("makes allocations of dm_switch wait for a device, for tests");
MODULE_LICENSE("GPL");
