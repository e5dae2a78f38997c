# SPDX-License-Identifier: BSD-3-Clause
"""Image files, read and written from docs/image-format.md alone: images as
earlier versions of znbd made them, and what a power loss leaves of one."""

import os
import struct
import uuid
import zlib

BLOCK = 4096
SECTOR = 512
COMMITS = 8192, 8192 + BLOCK
BOOT_ID = 64                    # in a commit
FORMAT = "<8sII16sQQQIIIIIIIIQQQQQQQ"
FIELDS = ("magic version crc uuid size zone_size zone_capacity zones "
          "conventional max_open max_active max_append granularity model zero "
          "volatile table_a table_b data file_size log log_size").split()


def up(n, to):
    return (n + to - 1) // to * to


def sealed(block, at, seed=0):
    """A struct with its checksum, which is at a place of it."""
    block = bytearray(block)
    block[at:at + 4] = bytes(4)
    block[at:at + 4] = struct.pack("<I", zlib.crc32(bytes(block), seed))
    return bytes(block)


def superblock(path):
    with open(path, "rb") as f:
        return dict(zip(FIELDS, struct.unpack(
            FORMAT, f.read(struct.calcsize(FORMAT)))))


def make_version_1(path, size, zone_size, conventional):
    """A host-managed disk with empty zones."""
    zones = up(size, zone_size) // zone_size
    table_a = up(16384 + 8 * (zones + 1), BLOCK)
    table_b = table_a + up(32 * zones, BLOCK)
    data = up(table_b + up(32 * zones, BLOCK), 1 << 20)
    name = uuid.uuid4().bytes
    block = struct.pack(
        FORMAT, b"znbdIMG\n", 1, 0, name, size, zone_size, zone_size, zones,
        conventional, 0, 0, zone_size, BLOCK, 2, 0, 16384, table_a, table_b,
        data, data + size, 0, 0).ljust(BLOCK, b"\0")
    with open(path, "wb") as f:
        f.write(2 * sealed(block, 12))
        for number in 2, 1:
            commit = struct.pack("<8sIIQQ", b"znbdCMT\n", 0, 1, number, 1)
            f.write(8 * sealed(commit.ljust(SECTOR, b"\0"), 8,
                               zlib.crc32(name)))
        f.truncate(data + size)


def reboot(path):
    """As if the machine had been off since: another boot has it open."""
    seed = zlib.crc32(superblock(path)["uuid"])
    boot_id = os.urandom(16)
    with open(path, "r+b") as f:
        for slot in COMMITS:
            for at in range(slot, slot + BLOCK, SECTOR):
                f.seek(at)
                commit = bytearray(f.read(SECTOR))
                commit[BOOT_ID:BOOT_ID + 16] = boot_id
                f.seek(at)
                f.write(sealed(commit, 8, seed))


def lose_data(path):
    """What was written in its place was not yet on the disk."""
    sb = superblock(path)
    with open(path, "r+b") as f:
        f.truncate(sb["data"])
        f.truncate(sb["file_size"])


def log_entries(path):
    """How many there are since the last commit."""
    sb = superblock(path)
    with open(path, "rb") as f:
        commits = []
        for slot in COMMITS:
            f.seek(slot + 16)
            number = struct.unpack("<Q", f.read(8))[0]
            f.seek(slot + 80)
            commits.append((number, f.read(8)))
        number, session = max(commits)
        at, count = 0, 0
        while at < sb["log_size"]:
            f.seek(sb["log"] + at)
            head = struct.unpack("<8sIIQ8sQQ", f.read(48))
            if (head[0], *head[3:6]) != (b"znbdLOG\n", number, session,
                                         count + 1):
                break
            count += 1
            at += BLOCK + up(head[6], BLOCK)
    return count
