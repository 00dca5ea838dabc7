/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The wire format of the device-mapper target "switch", as of 2011 (v3): what
 * userland sends to upload a page table over generic netlink, and the answer.
 *
 * Every number is in the machine's own byte order.  A page is the unit that is
 * sent to one device; its size is an argument of the target.  An entry of the
 * page table is the index of the device that owns one page.
 *
 * This file compiles by itself in the kernel and in userland, as C and as C++.
 * The module's Rust types are generated from it.
 */
#ifndef __DM_SWITCH_H
#define __DM_SWITCH_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdint.h>
#endif

/* A table is kept in chunks of 1 << CHUNK_PTE_SHIFT entries. */
#define CHUNK_PTE_SHIFT (13)
#define CHUNK_PTE_COUNT (1LL << CHUNK_PTE_SHIFT)

/* Chunks of an uploaded table at most.  Its last chunk is never full. */
#define MAX_NUMBER_OF_CHUNKS 128

/* Bytes that one message holds at most: an attribute's payload. */
#define MAX_IPC_MSG_LEN 65480

/* Characters of an error text at most, without the NUL. */
#define MAX_ERR_STR_LEN 255

enum Opcode {
	OPCODE_PAGE_TABLE_UPLOAD = 1,
};

/*
 * A window of a page table, from userland.
 *
 * Entries are pte_bits wide and packed into 32-bit words, the first entry in
 * the lowest bits, 32 / pte_bits to a word; bits left over are not used.
 * page_offset is a multiple of 32 / pte_bits.  A table that does not fit into
 * one message is sent in several with the same page_total, dev_count and
 * pte_bits.  With page_count 0 the chunk that begins at page_offset, a multiple
 * of CHUNK_PTE_COUNT, too, is freed.
 */
struct IpcPgTable {
	uint32_t total_len;	/* bytes of this message; not looked at */
	enum Opcode opcode;	/* not looked at */
	uint32_t userland[2];	/* kept, and shown in the status line */
	uint32_t dev_major;	/* the switch device */
	uint32_t dev_minor;
	uint32_t page_total;	/* entries of the whole table */
	uint32_t page_offset;	/* the window's first entry */
	uint32_t page_count;	/* entries in the window */
	uint16_t dev_count;	/* devices behind the switch */
	uint8_t pte_bits;	/* bits of an entry, 1 to 32 */
	uint8_t reserved;
	uint32_t ptbl_buff[1];	/* the entries; as many words as they need */
};

/* The answer to a window. */
struct IpcResponse {
	uint32_t total_len;	/* bytes of this answer */
	enum Opcode opcode;	/* OPCODE_PAGE_TABLE_UPLOAD */
	uint32_t userland[2];	/* the request's */
	uint32_t dev_major;	/* the request's */
	uint32_t dev_minor;	/* the request's */
	uint32_t status;	/* 0, or a positive errno */
	char err_str[MAX_ERR_STR_LEN + 1]; /* what is wrong, if status is not 0 */
};

/* Attributes of the generic netlink family */
enum {
	NETLINK_ATTR_UNSPEC,
	NETLINK_ATTR_MSG,	/* a struct IpcPgTable */
	NETLINK_ATTR__MAX,
};
#define NETLINK_ATTR_MAX (NETLINK_ATTR__MAX - 1)

/* Commands of the generic netlink family */
enum {
	NETLINK_CMD_UNSPEC,
	NETLINK_CMD_GET_PAGE_TBL,	/* upload a window */
	NETLINK_CMD__MAX,
};
#define NETLINK_CMD_MAX (NETLINK_CMD__MAX - 1)

#endif /* __DM_SWITCH_H */
