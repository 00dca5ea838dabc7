// SPDX-License-Identifier: GPL-2.0
/*
 * Does what a kernel that looks for faults has to complain of.  What is written
 * to /sys/module/faulty/parameters/fault says which, by the names below.
 */
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

static void write_behind(void)
{
	char *bytes = kmalloc(64, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(bytes);
	if (bytes)
		bytes[64] = 0;
	kfree(bytes);
}

/* Reads only, for there KASAN keeps what it knows of freed memory. */
static void read_freed(void)
{
	char *bytes = kmalloc(64, GFP_KERNEL);

	kfree(bytes);
	OPTIMIZER_HIDE_VAR(bytes);
	if (bytes)
		READ_ONCE(bytes[0]);
}

/*
 * Several, for what is left on a stack may look like a pointer to one.  That
 * they can be freed in the end does not look like one.
 */
static unsigned long forgotten[10];

static void forget(void)
{
	int count;

	for (count = 0; count < ARRAY_SIZE(forgotten); count++)
		if (!forgotten[count])
			forgotten[count] = ~(unsigned long)kmalloc(64, GFP_KERNEL);
}

static noinline void increment(struct work_struct *work)
{
	static unsigned int shared;
	unsigned int count;

	for (count = 0; count < 100000; count++) {
		shared++;
		barrier();
		cond_resched();
	}
}

static void race(void)
{
	static DECLARE_WORK(work, increment);
	struct workqueue_struct *queue = alloc_workqueue("faulty", WQ_UNBOUND, 0);

	if (!queue)
		return;
	queue_work(queue, &work);
	increment(NULL);
	destroy_workqueue(queue);
}

static void sleep_atomic(void)
{
	static DEFINE_SPINLOCK(lock);

	spin_lock(&lock);
	might_sleep();
	spin_unlock(&lock);
}

static void shift_far(void)
{
	unsigned int bits = 32;

	OPTIMIZER_HIDE_VAR(bits);
	pr_info("faulty: %u\n", 1U << bits);
}

static void add_twice(void)
{
	static LIST_HEAD(list);
	static LIST_HEAD(entry);

	list_add(&entry, &list);
	list_add(&entry, &list);
}

static void no_timeout(struct timer_list *timer)
{
}

static void free_active(void)
{
	struct timer_list *timer = kmalloc(sizeof(*timer), GFP_KERNEL);

	if (!timer)
		return;
	timer_setup(timer, no_timeout, 0);
	mod_timer(timer, jiffies + 60 * HZ);
	kfree(timer);
}

static void read_unprotected(void)
{
	static int value;
	static int __rcu *pointer;

	RCU_INIT_POINTER(pointer, &value);
	WRITE_ONCE(value, *rcu_dereference(pointer));
}

static void lock_crosswise(void)
{
	static DEFINE_MUTEX(one);
	static DEFINE_MUTEX(other);

	mutex_lock(&one);
	mutex_lock(&other);
	mutex_unlock(&other);
	mutex_unlock(&one);
	mutex_lock(&other);
	mutex_lock(&one);
	mutex_unlock(&one);
	mutex_unlock(&other);
}

static const struct {
	const char *name;
	void (*make)(void);
} faults[] = {
	{ "write-behind", write_behind },
	{ "read-freed", read_freed },
	{ "forget", forget },
	{ "race", race },
	{ "sleep-atomic", sleep_atomic },
	{ "shift-far", shift_far },
	{ "add-twice", add_twice },
	{ "free-active", free_active },
	{ "read-unprotected", read_unprotected },
	{ "lock-crosswise", lock_crosswise },
};

static int make_fault(const char *value, const struct kernel_param *param)
{
	int number;

	for (number = 0; number < ARRAY_SIZE(faults); number++) {
		if (sysfs_streq(value, faults[number].name)) {
			faults[number].make();
			return 0;
		}
	}
	return -EINVAL;
}

static const struct kernel_param_ops fault_ops = { .set = make_fault };
module_param_cb(fault, &fault_ops, NULL, 0200);

static int __init faulty_init(void)
{
	return 0;
}
module_init(faulty_init);

static void __exit faulty_exit(void)
{
	int count;

	for (count = 0; count < ARRAY_SIZE(forgotten); count++)
		if (forgotten[count])
			kfree((void *)~forgotten[count]);
}
module_exit(faulty_exit);

MODULE_DESCRIPTION("does what a kernel that looks for faults complains of");
MODULE_LICENSE("GPL");
