// SPDX-License-Identifier: GPL-2.0
/*
 * A target "linger" without I/O.  Its destructor, and with it that of the table that
 * it begins, waits while /sys/module/linger/parameters/wait is Y, 15 seconds at
 * most.  The log says when it begins.
 */
#include <linux/delay.h>
#include <linux/device-mapper.h>
#include <linux/jiffies.h>
#include <linux/module.h>

static bool wait;
module_param(wait, bool, 0600);

static int linger_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	return 0;
}

static void linger_dtr(struct dm_target *ti)
{
	unsigned long end = jiffies + 15 * HZ;

	pr_info("linger: goes\n");
	while (READ_ONCE(wait) && time_before(jiffies, end))
		msleep(20);
}

static int linger_map(struct dm_target *ti, struct bio *bio)
{
	return DM_MAPIO_KILL;
}

static struct target_type linger_target = {
	.name = "linger",
	.version = { 1, 0, 0 },
	.module = THIS_MODULE,
	.ctr = linger_ctr,
	.dtr = linger_dtr,
	.map = linger_map,
};
module_driver(linger_target, dm_register_target, dm_unregister_target);

MODULE_DESCRIPTION("is a target that takes its time to go");
MODULE_LICENSE("GPL");
