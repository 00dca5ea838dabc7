// SPDX-License-Identifier: GPL-2.0
/*
 * A generic netlink family, which comes and goes when somebody writes to
 * /sys/module/family/parameters/register: for that generic netlink's lock has
 * to be had for writing.
 */
#include <linux/module.h>
#include <net/genetlink.h>

static struct genl_family family = {
	.name = "DM_SWITCH_TEST",
	.module = THIS_MODULE,
};

static int register_family(const char *value, const struct kernel_param *param)
{
	int error = genl_register_family(&family);

	return error ?: genl_unregister_family(&family);
}

static const struct kernel_param_ops register_ops = { .set = register_family };
module_param_cb(register, &register_ops, NULL, 0200);

MODULE_DESCRIPTION("is a family that comes and goes");
MODULE_LICENSE("GPL");
