// SPDX-License-Identifier: GPL-2.0
/*
 * upload MAJOR MINOR: upload a table of eight pages over two devices with libnl, and print the answer: the
 * status, the userland words, the text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netlink/netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>

#include <dm-switch.h>

/* The type of the answer's attribute. */
#define RESPONSE 11

static int print_answer(struct nl_msg *msg, void *arg)
{
	struct nlattr *attr = nlmsg_find_attr(nlmsg_hdr(msg), GENL_HDRLEN, RESPONSE);
	struct IpcResponse answer;

	(void)arg;
	if (!attr || nla_len(attr) != sizeof(answer))
		return -NLE_PARSE_ERR;
	memcpy(&answer, nla_data(attr), sizeof(answer));
	printf("%u %08x %08x %s\n", answer.status, answer.userland[0], answer.userland[1], answer.err_str);
	return NL_OK;
}

static int fail(const char *what, int error)
{
	fprintf(stderr, "%s: %s\n", what, nl_geterror(error));
	return 1;
}

int main(int argc, char **argv)
{
	struct IpcPgTable table = {
		.total_len = sizeof(table),
		.opcode = OPCODE_PAGE_TABLE_UPLOAD,
		.userland = { 0x11111111, 0x22222222 },
		.page_total = 8,
		.page_count = 8,
		.dev_count = 2,
		.pte_bits = 4,
		.ptbl_buff = { 0x10010110 },
	};
	struct nl_sock *sock = nl_socket_alloc();
	struct nl_msg *msg = nlmsg_alloc();
	int family, error;

	if (argc != 3 || !sock || !msg)
		return 2;
	table.dev_major = atoi(argv[1]);
	table.dev_minor = atoi(argv[2]);
	nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, print_answer, NULL);
	error = genl_connect(sock);
	if (error < 0)
		return fail("genl_connect", error);
	family = genl_ctrl_resolve(sock, "DM_SWITCH");
	if (family < 0)
		return fail("genl_ctrl_resolve", family);
	if (!genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, NETLINK_CMD_GET_PAGE_TBL, 1))
		return 2;
	error = nla_put(msg, NETLINK_ATTR_MSG, sizeof(table), &table);
	if (error < 0)
		return fail("nla_put", error);
	/* Sends, and takes what comes until the acknowledgement. */
	error = nl_send_sync(sock, msg);
	nl_socket_free(sock);
	return error < 0 ? fail("nl_send_sync", error) : 0;
}
