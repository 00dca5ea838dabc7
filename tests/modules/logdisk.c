// SPDX-License-Identifier: GPL-2.0
/*
 * Disks that keep no data and tell in the kernel's log what they are sent, for
 * what no disk of a guest has: they erase securely, and have hardware for
 * inline encryption.  And a writer that wants the latter.
 *
 *   units  the sizes of data units that each disk encrypts, in bytes, added up:
 *          0,7680 makes /dev/logdisk0, with none, and /dev/logdisk1, with 512,
 *          1024, 2048 and 4096
 *   others the same, for data that is encrypted in another mode
 *
 * "DEVICE SECTOR SECTORS UNIT NUMBER", written to
 * /sys/module/logdisk/parameters/write, writes zeros to a block device, to be
 * encrypted in data units of UNIT bytes, the first of which has this number.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blk-crypto-profile.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/version.h>

#define DISKS 4

static unsigned int units[DISKS];
static unsigned int count;
module_param_array(units, uint, &count, 0444);

static unsigned int others[DISKS];
module_param_array(others, uint, NULL, 0444);

static struct gendisk *disks[DISKS];

#ifdef CONFIG_BLK_INLINE_ENCRYPTION
/* Not static themselves, for lockdep wants to register a key in each. */
static struct blk_crypto_profile *profiles[DISKS];

static int start_encryption(unsigned int number)
{
	struct blk_crypto_profile *profile = kzalloc(sizeof(*profile), GFP_KERNEL);

	if (!profile)
		return -ENOMEM;
	blk_crypto_profile_init(profile, 0);
	profile->max_dun_bytes_supported = sizeof(u64);
	profile->key_types_supported = BLK_CRYPTO_KEY_TYPE_RAW;
	profile->modes_supported[BLK_ENCRYPTION_MODE_AES_256_XTS] = units[number];
	profile->modes_supported[BLK_ENCRYPTION_MODE_AES_128_CBC_ESSIV] = others[number];
	blk_crypto_register(profile, disks[number]->queue);
	profiles[number] = profile;
	return 0;
}

static void stop_encryption(unsigned int number)
{
	blk_crypto_profile_destroy(profiles[number]);
	kfree(profiles[number]);
}

/* Returns whether the bio is to be encrypted; sets number to its first data unit's. */
static bool is_encrypted(struct bio *bio, u64 *number)
{
	if (!bio_has_crypt_ctx(bio))
		return false;
	*number = bio->bi_crypt_context->bc_dun[0];
	return true;
}
#else
static int start_encryption(unsigned int number)
{
	return 0;
}

static void stop_encryption(unsigned int number)
{
}

static bool is_encrypted(struct bio *bio, u64 *number)
{
	return false;
}
#endif

static void disk_submit_bio(struct bio *bio)
{
	u64 sector = bio->bi_iter.bi_sector, number = 0;

	if (is_encrypted(bio, &number))
		pr_info("%pg: %llu + %u encrypted from %llu\n", bio->bi_bdev, sector,
			bio_sectors(bio), number);
	else
		pr_info("%pg: %llu + %u %s\n", bio->bi_bdev, sector, bio_sectors(bio),
			bio_op(bio) == REQ_OP_SECURE_ERASE ? "erased securely" : "plain");
	bio_endio(bio);
}

static const struct block_device_operations disk_operations = {
	.owner = THIS_MODULE,
	.submit_bio = disk_submit_bio,
};

/* Allocates a disk that erases securely. */
static struct gendisk *alloc_disk(void)
{
	const unsigned int most = UINT_MAX >> SECTOR_SHIFT;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
	struct queue_limits limits = { .max_secure_erase_sectors = most };

	return blk_alloc_disk(&limits, NUMA_NO_NODE);
#else
	struct gendisk *disk = blk_alloc_disk(NUMA_NO_NODE);

	if (!disk)
		return ERR_PTR(-ENOMEM);
	blk_queue_max_secure_erase_sectors(disk->queue, most);
	return disk;
#endif
}

static int make_disk(unsigned int number)
{
	struct gendisk *disk = alloc_disk();
	int err;

	if (IS_ERR(disk))
		return PTR_ERR(disk);
	snprintf(disk->disk_name, DISK_NAME_LEN, "logdisk%u", number);
	disk->fops = &disk_operations;
	disk->flags |= GENHD_FL_NO_PART;
	set_capacity(disk, 16384);
	disks[number] = disk;
	err = start_encryption(number);
	if (err)
		goto put;
	err = add_disk(disk);
	if (err)
		goto stop;
	return 0;
stop:
	stop_encryption(number);
put:
	disks[number] = NULL;
	put_disk(disk);
	return err;
}

static void remove_disks(void)
{
	for (int number = 0; number < DISKS && disks[number]; number++) {
		del_gendisk(disks[number]);
		put_disk(disks[number]);
		stop_encryption(number);
	}
}

#ifdef CONFIG_BLK_INLINE_ENCRYPTION
/* From 7.3 on a key says whether hardware may have it; before, any may. */
#ifdef BLK_CRYPTO_CFG_ALLOW_HW
#define HARDWARE , BLK_CRYPTO_CFG_ALLOW_HW
#else
#define HARDWARE
#endif

static int init_key(struct blk_crypto_key *key, unsigned int unit)
{
	static const u8 bytes[64] = "sixty-four bytes";

	return blk_crypto_init_key(key, bytes, sizeof(bytes), BLK_CRYPTO_KEY_TYPE_RAW,
				   BLK_ENCRYPTION_MODE_AES_256_XTS, sizeof(u64), unit HARDWARE);
}

static void bio_done(struct bio *bio)
{
	complete(bio->bi_private);
}

static int write_zeros(struct block_device *bdev, u64 sector, unsigned int sectors,
		       const struct blk_crypto_key *key, u64 number)
{
	DECLARE_COMPLETION_ONSTACK(done);
	u64 dun[BLK_CRYPTO_DUN_ARRAY_SIZE] = { number };
	unsigned int bytes = sectors << SECTOR_SHIFT, len;
	struct bio *bio = bio_alloc(bdev, DIV_ROUND_UP(bytes, PAGE_SIZE), REQ_OP_WRITE, GFP_KERNEL);
	int err;

	for (; bytes; bytes -= len) {
		len = min(bytes, PAGE_SIZE);
		__bio_add_page(bio, ZERO_PAGE(0), len, 0);
	}
	bio->bi_iter.bi_sector = sector;
	bio->bi_private = &done;
	bio->bi_end_io = bio_done;
	bio_crypt_set_ctx(bio, key, dun, GFP_KERNEL);
	blk_crypto_submit_bio(bio);
	wait_for_completion_io(&done);
	err = blk_status_to_errno(bio->bi_status);
	bio_put(bio);
	return err;
}

static int set_write(const char *value, const struct kernel_param *param)
{
	struct blk_crypto_key key;
	unsigned int sectors, unit;
	u64 sector, number;
	char path[32];
	struct file *file;
	int err;

	if (sscanf(value, "%31s %llu %u %u %llu", path, &sector, &sectors, &unit, &number) != 5)
		return -EINVAL;
	err = init_key(&key, unit);
	if (err)
		return err;
	file = bdev_file_open_by_path(path, BLK_OPEN_WRITE, NULL, NULL);
	if (IS_ERR(file))
		return PTR_ERR(file);
	err = blk_crypto_start_using_key(file_bdev(file), &key);
	if (!err)
		err = write_zeros(file_bdev(file), sector, sectors, &key, number);
	blk_crypto_evict_key(file_bdev(file), &key);
	bdev_fput(file);
	return err;
}

static const struct kernel_param_ops write_operations = {
	.set = set_write,
};
module_param_cb(write, &write_operations, NULL, 0200);
#endif

static int __init logdisk_init(void)
{
	for (unsigned int number = 0; number < count; number++) {
		int err = make_disk(number);

		if (err) {
			remove_disks();
			return err;
		}
	}
	return 0;
}
module_init(logdisk_init);

static void __exit logdisk_exit(void)
{
	remove_disks();
}
module_exit(logdisk_exit);

MODULE_DESCRIPTION("disks that tell what they are sent, for tests");
MODULE_LICENSE("GPL");
