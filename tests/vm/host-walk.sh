# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The random walk on null_blk and ZNS devices, served by znbd-server and by
# nbdkit with the plugin; see host_walk.py.  ZNBD_SEED=N walks another way,
# ZNBD_LONG=1 fifty times as far.

. "$srcdir/vm/functions.sh"

null_blk size=48 zone_size=2 zone_capacity=1 zone_nr_conv=2 \
         zone_max_open=3 zone_max_active=5 blocksize=4096
walk "null_blk 4096, capacity below size, open and active limits"
null_blk size=15 zone_size=2 zone_max_open=2 blocksize=512
walk "null_blk 512, a smaller last zone, an open limit"
zns_disk 4096
walk "ZNS 4096, capacity below size, open and active limits"
zns_disk 512
walk "ZNS 512, no limits"
