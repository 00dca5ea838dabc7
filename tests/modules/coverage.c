// SPDX-License-Identifier: GPL-2.0
/*
 * Sums up the counters of a dm_switch that is built with COVERAGE, whenever that
 * is unloaded or fails to load, in /sys/kernel/debug/dm_switch/counters.  Once
 * loaded, it stays.
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
}

static void add_counters(void)
{
	for (u32 i = 0; i < file.n_elements; i++)
		sums[i] = min(sums[i] + counters[i], (u64)U32_MAX);
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
	int err = register_module_notifier(&block);

	if (err)
		return err;
	debugfs_create_u32_array("counters", 0400, debugfs_create_dir("dm_switch", NULL), &file);
	return 0;
}
module_init(coverage_init);

MODULE_DESCRIPTION("sums up the counters of dm_switch, for make coverage");
MODULE_LICENSE("GPL");
