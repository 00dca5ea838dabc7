// SPDX-License-Identifier: GPL-2.0
/*
 * Has the switch that was made last print into buffers of each length, up to one
 * that is longer than the text.  Write to /sys/module/lines/parameters/print:
 *
 *   info, table, ima    for the line of this kind
 *   another             for a line of an unknown kind
 *   page_table, chunk_hits
 *                       for the answer to this message
 *
 * The write fails with EIO, and the log says why, if a buffer has anything but the
 * beginning of the text and a NUL, or if a byte after the buffer was changed.
 */
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
	pr_err("lines: %s is wrong in a buffer of %u bytes\n", what, length);
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
	pr_info("lines: %s: %zu characters\n", what, strlen(whole));
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

static int __init lines_init(void)
{
	return register_kprobe(&construction);
}
module_init(lines_init);

static void __exit lines_exit(void)
{
	unregister_kprobe(&construction);
}
module_exit(lines_exit);

MODULE_DESCRIPTION("has a switch print into short buffers, for tests");
MODULE_LICENSE("GPL");
