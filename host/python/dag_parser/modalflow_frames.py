"""Reading frames from a socket: what the host says to the warm process, and to a child that has asked something."""

import json
import os
import struct


def exactly(link, size):
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def receive(link):
    header_bytes, body_bytes = struct.unpack("!II", exactly(link, 8))
    return json.loads(exactly(link, header_bytes)), exactly(link, body_bytes)
