// SPDX-License-Identifier: GPL-2.0
/*
 * What the stand-in for the crate `kernel` calls of what C has only as a macro
 * or an inline function, and the input from which bindgen makes its bindings.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mutex.h>
#include <linux/netlink.h>
#include <linux/percpu.h>
#include <linux/printk.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/skbuff.h>
#include <linux/slab.h>

const gfp_t HELPER_GFP_KERNEL = GFP_KERNEL;

void *helper_kmalloc(size_t size, gfp_t flags)
{
	return kmalloc(size, flags);
}

void *helper_kvmalloc(size_t size, gfp_t flags)
{
	return kvmalloc(size, flags);
}

void helper_mutex_init(struct mutex *mutex, const char *name, struct lock_class_key *key)
{
	__mutex_init(mutex, name, key);
}

void helper_mutex_lock(struct mutex *mutex)
{
	mutex_lock(mutex);
}

void helper_refcount_set(refcount_t *count, int value)
{
	refcount_set(count, value);
}

void helper_refcount_inc(refcount_t *count)
{
	refcount_inc(count);
}

bool helper_refcount_dec_and_test(refcount_t *count)
{
	return refcount_dec_and_test(count);
}

void helper_printk(int level, const char *text, size_t len)
{
	_printk(KERN_SOH "%c%.*s", '0' + level, (int)len, text);
}
