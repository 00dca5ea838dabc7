// SPDX-License-Identifier: GPL-2.0
/*
 * A reader for whom what is freed behind RCU has to wait, as long as a test
 * wants.  Whoever writes to /sys/module/reader/parameters/read is one until it
 * gets a signal, and keeps its processor all the while, of which no watchdog is
 * to complain.  The log says when it begins.
 */
#include <linux/module.h>
#include <linux/nmi.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>

static int read(const char *value, const struct kernel_param *param)
{
	rcu_read_lock_sched();
	pr_info("reader: reads\n");
	while (!signal_pending(current))
		touch_softlockup_watchdog();
	rcu_read_unlock_sched();
	return 0;
}

static const struct kernel_param_ops read_ops = { .set = read };
module_param_cb(read, &read_ops, NULL, 0200);

MODULE_DESCRIPTION("is a reader for as long as a test wants");
MODULE_LICENSE("GPL");
