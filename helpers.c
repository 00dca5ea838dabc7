// SPDX-License-Identifier: GPL-2.0
/*
 * Wrappers of macros and inline functions of C, most of what differs between kernels, and the
 * freeing of replaced values.  bindgen makes the module's bindings from this file.
 */
#include <linux/anon_inodes.h>
#include <linux/blk-crypto-profile.h>
#include <linux/blk-integrity.h>
#include <linux/device-mapper.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/ratelimit.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>

#include "dm-switch.h"

#ifdef DM_TARGET_ATOMIC_WRITES
#define HAVE_ATOMIC_WRITES
#else
#define DM_TARGET_ATOMIC_WRITES 0
#endif

#ifndef REQ_ATOMIC
#define REQ_ATOMIC 0
#endif

void helper_bio_set_dev(struct bio *bio, struct block_device *bdev)
{
	bio_set_dev(bio, bdev);
}

/* Return the pointer, so that the caller needs no callee-saved register for it. */
void *helper_rcu_read_lock_sched_keeping(void *kept)
{
	rcu_read_lock_sched();
	return kept;
}

void helper_rcu_read_unlock_sched(void)
{
	rcu_read_unlock_sched();
}

/*
 * Count a bio in two counts, end the caller's rcu_read_lock_sched(), and redirect the bio to a
 * device.
 */
void helper_bio_remap(struct bio *bio, struct block_device *bdev,
		      u64 __percpu *target_count, u64 __percpu *chunk_hits)
{
	this_cpu_inc(*target_count);
	this_cpu_inc(*chunk_hits);
	rcu_read_unlock_sched();
	bio_set_dev(bio, bdev);
}

/*
 * Shorten a bio, which is being mapped, to its first @sectors sectors, fewer than it has.  Return
 * false, and change nothing, if it is an atomic write.
 *
 * Device-mapper passes on a flush with data only if the whole table is on one device.  Both parts
 * keep REQ_PREFLUSH, so each flushes that device before its own data, and the bio may be cut.
 */
bool helper_bio_cut(struct bio *bio, unsigned int sectors)
{
	if (bio->bi_opf & REQ_ATOMIC)
		return false;
	dm_accept_partial_bio(bio, sectors);
	if (bio_integrity(bio))
		bio_integrity_trim(bio);
	return true;
}

dev_t helper_bdev_devt(struct block_device *bdev)
{
	return bdev->bd_dev;
}

sector_t helper_bdev_nr_sectors(struct block_device *bdev)
{
	/* A resize of the device changes it under a lock that is not held here. */
	return READ_ONCE(bdev->bd_nr_sectors);
}

bool helper_bdev_is_zoned(struct block_device *bdev)
{
	return bdev_is_zoned(bdev);
}

unsigned int helper_bdev_logical_block_size(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

unsigned int helper_bdev_data_units(struct block_device *bdev, enum blk_crypto_mode_num mode)
{
#ifdef CONFIG_BLK_INLINE_ENCRYPTION
	struct blk_crypto_profile *profile = READ_ONCE(bdev_get_queue(bdev)->crypto_profile);

	if (profile)
		return profile->modes_supported[mode];
#endif
	return 0;
}

/* Return the number of the target's mapped device. */
dev_t helper_dm_target_devt(struct dm_target *ti)
{
	return disk_devt(dm_disk(dm_table_get_md(ti->table)));
}

int helper_dm_get_device(struct dm_target *ti, const char *path, struct dm_dev **dev)
{
	return dm_get_device(ti, path, dm_table_get_mode(ti->table), dev);
}

/* Kbuild looks for the field.  Kernels without it send num_flush_bios flushes through the map. */
void helper_dm_target_flush_bypasses_map(struct dm_target *ti)
{
#ifdef HAVE_FLUSH_BYPASSES_MAP
	ti->flush_bypasses_map = true;
#endif
}

/* Store the least and the greatest length of an atomic write in bytes, or 0 if there is none. */
void helper_get_atomic_writes(struct queue_limits *limits, unsigned int *units)
{
#ifdef HAVE_ATOMIC_WRITES
	units[0] = limits->atomic_write_hw_unit_min;
	units[1] = limits->atomic_write_hw_unit_max;
#else
	units[0] = 0;
	units[1] = 0;
#endif
}

/*
 * Set the least and the greatest length.  The greatest is also the boundary.  So a partition or a
 * stacked device that does not begin at a multiple of that length gets no atomic writes: those that
 * are aligned in the partition would not be aligned in the target.
 */
void helper_set_atomic_writes(struct queue_limits *limits, const unsigned int *units)
{
#ifdef HAVE_ATOMIC_WRITES
	limits->atomic_write_hw_unit_min = units[0];
	limits->atomic_write_hw_unit_max = units[1];
	limits->atomic_write_hw_max = units[1];
	limits->atomic_write_hw_boundary = units[1];
#endif
}

/* The callback of the module's only target type. */
static int (*prepare_ioctl)(struct dm_target *ti, struct block_device **bdev);

static int __maybe_unused prepare_ioctl_without_command(struct dm_target *ti,
							struct block_device **bdev)
{
	return prepare_ioctl(ti, bdev);
}

static int __maybe_unused prepare_ioctl_with_command(struct dm_target *ti,
						     struct block_device **bdev, unsigned int cmd,
						     unsigned long arg, bool *forward)
{
	return prepare_ioctl(ti, bdev);
}

/* target_type.prepare_ioctl has three more arguments in Linux 7 than in 6.12. */
void helper_set_prepare_ioctl(struct target_type *type,
			      int (*callback)(struct dm_target *ti, struct block_device **bdev))
{
	prepare_ioctl = callback;
	type->prepare_ioctl = _Generic(type->prepare_ioctl,
				       typeof(&prepare_ioctl_without_command): prepare_ioctl_without_command,
				       typeof(&prepare_ioctl_with_command): prepare_ioctl_with_command);
}

u64 __percpu *helper_alloc_percpu_u64(size_t count)
{
	return __alloc_percpu(array_size(count, sizeof(u64)), sizeof(u64));
}

/* Return the bytes of @count counts on all CPUs. */
size_t helper_percpu_u64_bytes(size_t count)
{
	return count * sizeof(u64) * num_possible_cpus();
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

/* A replaced value, which readers may still use. */
struct retired {
	struct rcu_work work;
	/* Memory of the value. */
	size_t bytes;
	void (*free)(struct retired *retired);
};

/*
 * The limit of bytes that wait to be freed.  Above it, PageTable::next_version makes no table
 * (helper_retirement_has_room).  Above half of it, a thread that has replaced a value waits when it
 * returns to userland.  So the limit is reached only by many threads at once,
 * by many messages in one system call, by threads that do not wait (killed ones, and ones without
 * memory for the file through which wait_on_return makes them wait), or by one very large table of
 * the kernel's own line.
 */
#define MAX_RETIRED (64L << 20)

static struct workqueue_struct *retirement;
static atomic_long_t retired_bytes = ATOMIC_LONG_INIT(0);
static DECLARE_WAIT_QUEUE_HEAD(retired_wait);

int helper_begin_retirement(void)
{
	/* WQ_MEM_RECLAIM: a thread that waits for it may hold up the resume of a swap device. */
	retirement = alloc_workqueue("dm_switch", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return retirement ? 0 : -ENOMEM;
}

/* Wait until all values are freed: first until all are queued. */
void helper_end_retirement(void)
{
	rcu_barrier();
	destroy_workqueue(retirement);
}

bool helper_retirement_has_room(void)
{
	return atomic_long_read(&retired_bytes) <= MAX_RETIRED;
}

static void free_retired(struct work_struct *work)
{
	struct retired *retired = container_of(to_rcu_work(work), struct retired, work);
	size_t bytes = retired->bytes;

	retired->free(retired);
	atomic_long_sub(bytes, &retired_bytes);
	wake_up_all(&retired_wait);
}

static int wait_for_retired(struct inode *inode, struct file *file)
{
	wait_event_killable(retired_wait, atomic_long_read(&retired_bytes) <= MAX_RETIRED / 2);
	return 0;
}

static const struct file_operations wait_operations = {
	.owner = THIS_MODULE,
	.release = wait_for_retired,
};

/*
 * Make the thread wait when it returns to userland, where it holds no locks: the kernel calls the
 * release function of a file there, after the thread has put the last reference.  Without memory
 * for the file, the thread does not wait.
 */
static void wait_on_return(void)
{
	struct file *file = anon_inode_getfile("[dm-switch]", &wait_operations, NULL, 0);

	if (!IS_ERR(file))
		fput(file);
}

/* Queue a value, to be freed by a worker after its last reader.  Does not wait for that. */
void helper_retire(struct retired *retired)
{
	long bytes = atomic_long_add_return(retired->bytes, &retired_bytes);

	INIT_RCU_WORK(&retired->work, free_retired);
	queue_rcu_work(retirement, &retired->work);
	if (bytes > MAX_RETIRED / 2)
		wait_on_return();
}

bool helper_ratelimit(const char *what)
{
	static DEFINE_RATELIMIT_STATE(state, DEFAULT_RATELIMIT_INTERVAL,
				      DEFAULT_RATELIMIT_BURST);

	return ___ratelimit(&state, what);
}

/* Return -EINTR if the thread is being killed. */
int helper_cond_resched_killable(void)
{
	cond_resched();
	return fatal_signal_pending(current) ? -EINTR : 0;
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

/* The module's only family.  Linux 6.1 does not pass a message's family to the handler. */
static struct genl_family *genl_family;

struct genl_family *helper_genl_family(void)
{
	return genl_family;
}

int helper_genl_register_family(struct genl_family *family)
{
	genl_family = family;
	return genl_register_family(family);
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

/* The number in the file /sys/module/dm_switch/familyid. */
static int familyid;

static ssize_t __maybe_unused familyid_show(struct module_attribute *attribute,
					    struct module_kobject *module, char *buffer)
{
	return sysfs_emit(buffer, "%d\n", familyid);
}

static ssize_t __maybe_unused familyid_show_const(const struct module_attribute *attribute,
						  struct module_kobject *module, char *buffer)
{
	return sysfs_emit(buffer, "%d\n", familyid);
}

/* `show` takes a const attribute in Linux 7, and not in 6.12. */
static const struct module_attribute familyid_attribute = {
	.attr = { .name = "familyid", .mode = 0444 },
	.show = _Generic(((struct module_attribute *)NULL)->show,
			 typeof(&familyid_show): familyid_show,
			 typeof(&familyid_show_const): familyid_show_const),
};

int helper_create_familyid(struct module *module, int id)
{
	familyid = id;
	return sysfs_create_file(&module->mkobj.kobj, &familyid_attribute.attr);
}

void helper_remove_familyid(struct module *module)
{
	sysfs_remove_file(&module->mkobj.kobj, &familyid_attribute.attr);
}

/* Shown as /sys/module/dm_switch/version. */
MODULE_VERSION("1.0.0");
