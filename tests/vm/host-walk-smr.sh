# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The random walk of host-walk.sh on SMR disks.

. "$srcdir/vm/functions.sh"

smr_disk dev_size_mb=32 zone_size_mb=2 zone_nr_conv=2 zone_max_open=3
walk "SMR 512, conventional zones, an open limit"
smr_disk dev_size_mb=24 zone_size_mb=2 zone_nr_conv=1 sector_size=4096
walk "SMR 4096, no limit"
