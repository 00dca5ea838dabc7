// SPDX-License-Identifier: GPL-2.0
/*
 * Wrappers for what C has only as a macro or an inline function, and the input
 * from which bindgen makes the module's bindings.
 */
#include <linux/blk-crypto-profile.h>
#include <linux/device-mapper.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/ratelimit.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <net/genetlink.h>

#include "dm-switch.h"

void helper_bio_set_dev(struct bio *bio, struct block_device *bdev)
{
	bio_set_dev(bio, bdev);
}

void helper_rcu_read_lock_sched(void)
{
	rcu_read_lock_sched();
}

void helper_rcu_read_unlock_sched(void)
{
	rcu_read_unlock_sched();
}

/*
 * What a bio that is mapped takes, behind the lookup: called under
 * rcu_read_lock_sched(), which it ends.
 */
void helper_bio_follow(struct bio *bio, struct block_device *bdev,
		       u64 __percpu *first, u64 __percpu *second)
{
	this_cpu_inc(*first);
	this_cpu_inc(*second);
	rcu_read_unlock_sched();
	bio_set_dev(bio, bdev);
}

bool helper_bdev_is_zoned(struct block_device *bdev)
{
	return bdev_is_zoned(bdev);
}

unsigned int helper_bdev_logical_block_size(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

unsigned int helper_bdev_data_units(struct block_device *bdev)
{
	unsigned int units = 0;
#ifdef CONFIG_BLK_INLINE_ENCRYPTION
	struct blk_crypto_profile *profile = READ_ONCE(bdev_get_queue(bdev)->crypto_profile);

	for (int mode = 0; profile && mode < BLK_ENCRYPTION_MODE_MAX; mode++)
		units |= profile->modes_supported[mode];
#endif
	return units;
}

u64 __percpu *helper_alloc_percpu_u64(size_t count)
{
	return __alloc_percpu(array_size(count, sizeof(u64)), sizeof(u64));
}

void helper_this_cpu_inc(u64 __percpu *count)
{
	this_cpu_inc(*count);
}

u64 helper_percpu_sum(u64 __percpu *count)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(count, cpu));
	return sum;
}

bool helper_ratelimit(const char *what)
{
	static DEFINE_RATELIMIT_STATE(state, DEFAULT_RATELIMIT_INTERVAL,
				      DEFAULT_RATELIMIT_BURST);

	return ___ratelimit(&state, what);
}

unsigned long helper_totalram_pages(void)
{
	return totalram_pages();
}

unsigned int helper_memalloc_noio_save(void)
{
	return memalloc_noio_save();
}

void helper_memalloc_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

struct sk_buff *helper_genlmsg_new(size_t payload)
{
	return genlmsg_new(payload, GFP_KERNEL);
}

void helper_nlmsg_free(struct sk_buff *skb)
{
	nlmsg_free(skb);
}

void helper_genlmsg_end(struct sk_buff *skb, void *hdr)
{
	genlmsg_end(skb, hdr);
}

int helper_genlmsg_unicast(struct sk_buff *skb, u32 portid)
{
	return genlmsg_unicast(&init_net, skb, portid);
}

/* Shown as /sys/module/dm_switch/version. */
MODULE_VERSION("1.0.0");
