# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# f2fs on a remote disk, whose conventional zones it has for its metadata.

. "$srcdir/vm/attach_fs.sh"

load_module f2fs
disk --size 1G --zone-size 8M --conventional 16

make_fs () { mkfs.f2fs -q -m "$dev"; }
check_fs () { fsck.f2fs "$dev"; }
course f2fs
