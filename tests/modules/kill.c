// SPDX-License-Identifier: GPL-2.0
/*
 * Kills a process at one of its system calls, for tests of what that leaves
 * behind.  In /sys/module/kill/parameters:
 *
 *   name  of the process
 *   nth   write N to have it killed at the Nth system call from now on; 0 once
 *         it was
 *
 * The call is still done, with the signal pending all the while, but the process
 * does not see it return.
 */
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/tracepoint.h>

static char name[TASK_COMM_LEN];
module_param_string(name, name, sizeof(name), 0644);

static int nth;
module_param(nth, int, 0644);

static struct tracepoint *sys_enter;

static void on_sys_enter(void *data, struct pt_regs *regs, long number)
{
	if (nth && !strcmp(current->comm, name) && !--nth)
		send_sig(SIGKILL, current, 1);
}

static void find(struct tracepoint *tracepoint, void *data)
{
	if (!strcmp(tracepoint->name, "sys_enter"))
		sys_enter = tracepoint;
}

static int __init kill_init(void)
{
	for_each_kernel_tracepoint(find, NULL);
	return sys_enter ? tracepoint_probe_register(sys_enter, on_sys_enter, NULL) : -ENOENT;
}
module_init(kill_init);

static void __exit kill_exit(void)
{
	tracepoint_probe_unregister(sys_enter, on_sys_enter, NULL);
	tracepoint_synchronize_unregister();
}
module_exit(kill_exit);

MODULE_DESCRIPTION("kills a process at a system call, for tests");
MODULE_LICENSE("GPL");
