#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""upload.py MAJOR MINOR: upload a table of eight pages over two devices with pyroute2, and print the answer:
the status, the userland words, the text."""

import struct
import sys

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.generic import GenericNetlinkSocket


class Message(genlmsg):
    """A request to the family, or an answer."""

    nla_map = ((1, "MSG", "cdata"), (11, "RESPONSE", "cdata"))


major, minor = map(int, sys.argv[1:])
# struct IpcPgTable, with one word of entries.
window = struct.pack("=9IHBBI", 44, 1, 0x11111111, 0x22222222, major, minor, 8, 0, 8, 2, 4, 0, 0x10010110)

with GenericNetlinkSocket() as sock:
    sock.bind("DM_SWITCH", Message)
    request = Message()
    request["cmd"] = 1
    request["version"] = 1
    request["attrs"] = [("MSG", window)]
    for reply in sock.nlm_request(request, msg_type=sock.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK):
        # struct IpcResponse.
        answer = struct.unpack("=7I256s", bytes(reply.get_attr("RESPONSE")))
        print(f"{answer[6]} {answer[2]:08x} {answer[3]:08x} {answer[7].split(bytes(1))[0].decode()}")
