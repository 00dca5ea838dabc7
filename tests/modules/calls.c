// SPDX-License-Identifier: GPL-2.0
/*
 * Calls the functions of the switch that was made last as no test can make
 * device-mapper call them.  A write to one of these files fails with EIO, and the log
 * says why, if the result is wrong:
 *
 * /sys/module/calls/parameters/print: print into buffers of each length, up to one
 * that is longer than the text.  A buffer must get the beginning of the text and a
 * NUL, and the bytes after it must not change.  The value is one of
 *
 *   info, table, ima    for the line of this kind
 *   another             for a line of an unknown kind
 *   page_table, chunk_hits
 *                       for the answer to this message
 *
 * /sys/module/calls/parameters/refuse_atomic: map an atomic write that would have to
 * be cut.  It must be refused, as it is.  The value is its first sector, of the
 * mapped device, and its number of sectors.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>

static struct dm_target *target;

/* The constructor calls the probed function last. */
static int on_construction(struct kprobe *probe, struct pt_regs *regs)
{
	target = (void *)regs_get_kernel_argument(regs, 0);
	return 0;
}

static struct kprobe construction = {
	.symbol_name = "dm_switch:helper_dm_target_flush_bypasses_map",
	.pre_handler = on_construction,
};

static int wrong(const char *what, unsigned int length)
{
	pr_err("calls: %s is wrong in a buffer of %u bytes\n", what, length);
	return -EIO;
}

static int send_message(const char *message, char *buffer, unsigned int length)
{
	char word[16];
	char *words[] = { word };

	strscpy(word, message, sizeof(word));
	return target->type->message(target, 1, words, buffer, length);
}

static int write_text(const char *what, char *buffer, unsigned int length)
{
	static const char * const types[] = {
		[STATUSTYPE_INFO] = "info",
		[STATUSTYPE_TABLE] = "table",
		[STATUSTYPE_IMA] = "ima",
		[STATUSTYPE_IMA + 1] = "another",
	};
	int type = match_string(types, ARRAY_SIZE(types), what);

	if (type < 0)
		return send_message(what, buffer, length) == 1 ? 0 : wrong(what, length);
	target->type->status(target, type, 0, buffer, length);
	return 0;
}

static int truncate_text(const char *what, char *whole, char *buffer)
{
	unsigned int length, count;

	if (write_text(what, whole, SZ_16K))
		return -EIO;
	for (length = 0; length <= strlen(whole) + 2; length++) {
		memset(buffer, '~', length + 8);
		if (write_text(what, buffer, length))
			return -EIO;
		count = length ? min_t(unsigned int, strlen(whole), length - 1) : 0;
		if (memcmp(buffer, whole, count) || (length && buffer[count]) || buffer[length] != '~')
			return wrong(what, length);
	}
	pr_info("calls: %s: %zu characters\n", what, strlen(whole));
	return 0;
}

static int check_text(const char *what)
{
	char *whole = kmalloc(SZ_16K, GFP_KERNEL);
	char *buffer = kmalloc(SZ_16K + 16, GFP_KERNEL);
	int err = -ENOMEM;

	if (whole && buffer)
		err = truncate_text(what, whole, buffer);
	kfree(whole);
	kfree(buffer);
	return err;
}

static int print(const char *value, const struct kernel_param *param)
{
	char what[16];

	strscpy(what, value, sizeof(what));
	strim(what);
	return target ? check_text(what) : -ENODEV;
}

static const struct kernel_param_ops print_ops = { .set = print };
module_param_cb(print, &print_ops, NULL, 0200);

#ifdef REQ_ATOMIC
static int refuse_atomic(const char *value, const struct kernel_param *param)
{
	unsigned int first, count;
	struct bio bio;
	int result;

	if (!target)
		return -ENODEV;
	if (sscanf(value, "%u %u", &first, &count) != 2)
		return -EINVAL;
	bio_init(&bio, NULL, NULL, 0, REQ_OP_WRITE | REQ_ATOMIC);
	bio.bi_iter.bi_sector = first;
	bio.bi_iter.bi_size = count * SECTOR_SIZE;
	result = target->type->map(target, &bio);
	if (result == DM_MAPIO_KILL && bio_sectors(&bio) == count && !bio.bi_bdev)
		return 0;
	pr_err("calls: map returned %d, and left %u of %u sectors\n", result, bio_sectors(&bio), count);
	return -EIO;
}

static const struct kernel_param_ops refuse_atomic_ops = { .set = refuse_atomic };
module_param_cb(refuse_atomic, &refuse_atomic_ops, NULL, 0200);
#endif

static int __init calls_init(void)
{
	return register_kprobe(&construction);
}
module_init(calls_init);

static void __exit calls_exit(void)
{
	unregister_kprobe(&construction);
}
module_exit(calls_exit);

MODULE_DESCRIPTION("calls the functions of a switch, for tests");
MODULE_LICENSE("GPL");
