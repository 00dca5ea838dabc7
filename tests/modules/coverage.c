// SPDX-License-Identifier: GPL-2.0
/*
 * Shows the counters of a dm_switch that is built with COVERAGE, in
 * /sys/kernel/debug/dm_switch.  The file "live" has those of the dm_switch that
 * is loaded, each a u64; it must not be read while that is unloaded.  The file
 * "counters" has the sums, in text, of each dm_switch that was unloaded or
 * failed to load.  Once loaded, this module stays.
 */
#include <linux/debugfs.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/rcupdate.h>

static u32 sums[4096];
static struct debugfs_u32_array file = { .array = sums };

/* Of the module that is loaded. */
static u64 *counters;
static struct debugfs_blob_wrapper live;

/* Returns the address of a symbol of a module that is being loaded, or NULL. */
static u64 *find(struct module *module, const char *name)
{
	struct mod_kallsyms *symbols = rcu_dereference_protected(module->kallsyms, true);

	for (unsigned int i = 0; i < symbols->num_symtab; i++)
		if (!strcmp(symbols->strtab + symbols->symtab[i].st_name, name))
			return (u64 *)symbols->symtab[i].st_value;
	return NULL;
}

static void find_counters(struct module *module)
{
	u64 *end = find(module, "coverage_counters_end");

	counters = find(module, "coverage_counters");
	file.n_elements = counters ? end - counters : 0;
	if (WARN_ON(!counters || file.n_elements > ARRAY_SIZE(sums)))
		file.n_elements = 0;
	live.data = counters;
	live.size = file.n_elements * sizeof(*counters);
}

static void add_counters(void)
{
	for (u32 i = 0; i < file.n_elements; i++)
		sums[i] = min(sums[i] + counters[i], (u64)U32_MAX);
	live.size = 0;
}

static int on_module(struct notifier_block *block, unsigned long state, void *data)
{
	struct module *module = data;

	if (!strcmp(module->name, "dm_switch")) {
		if (state == MODULE_STATE_COMING)
			find_counters(module);
		else if (state == MODULE_STATE_GOING)
			add_counters();
	}
	return NOTIFY_DONE;
}

static struct notifier_block block = { .notifier_call = on_module };

static int __init coverage_init(void)
{
	struct dentry *dir;
	int err = register_module_notifier(&block);

	if (err)
		return err;
	dir = debugfs_create_dir("dm_switch", NULL);
	debugfs_create_u32_array("counters", 0400, dir, &file);
	debugfs_create_blob("live", 0400, dir, &live);
	return 0;
}
module_init(coverage_init);

MODULE_DESCRIPTION("shows the counters of dm_switch, for make coverage and make fuzz");
MODULE_LICENSE("GPL");
