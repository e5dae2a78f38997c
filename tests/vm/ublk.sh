# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The kernel's ublk driver is there, answers over an io_uring and knows
# zones: what a client's zoned block device will stand on.

. "$srcdir/vm/functions.sh"

load_module ublk_drv
ok "there is /dev/ublk-control" wait_for [ -c /dev/ublk-control ]
run ./ublk-features
is "$status" 0 "the driver tells its features"
diag "$out"
[ "$status" -eq 0 ] || exit 1
# Numbers from the kernel's include/uapi/linux/ublk_cmd.h
is $((out >> 6 & 1)) 1 "commands are numbered as ioctls (CMD_IOCTL_ENCODE)"
is $((out >> 7 & 1)) 1 "data goes by pread and pwrite (USER_COPY)"
is $((out >> 8 & 1)) 1 "zones (ZONED)"
