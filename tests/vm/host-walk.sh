# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The random walk on zoned devices of each kind, served by znbd-server and by
# nbdkit with the plugin; see host_walk.py.  ZNBD_SEED=N walks another way,
# ZNBD_LONG=1 fifty times as far.

. "$srcdir/vm/functions.sh"

# walk NAME: on $dev
walk ()
{
  local server
  run "$PYTHON" "$srcdir/vm/host_walk.py" "$dev" znbd-server nbdkit
  for server in znbd-server nbdkit; do
    if [[ $out =~ "all agree behind $server: "[^$'\n']* ]]; then
      pass "$1, behind $server"
      diag "${BASH_REMATCH[0]}"
    else
      fail "$1, behind $server" "$out"
    fi
  done
}

null_blk size=48 zone_size=2 zone_capacity=1 zone_nr_conv=2 \
         zone_max_open=3 zone_max_active=5 blocksize=4096
walk "null_blk 4096, capacity below size, open and active limits"
null_blk size=15 zone_size=2 zone_max_open=2 blocksize=512
walk "null_blk 512, a smaller last zone, an open limit"
zns_disk 4096
walk "ZNS 4096, capacity below size, open and active limits"
zns_disk 512
walk "ZNS 512, no limits"
smr_disk dev_size_mb=32 zone_size_mb=2 zone_nr_conv=2 zone_max_open=3
walk "SMR 512, conventional zones, an open limit"
smr_disk dev_size_mb=24 zone_size_mb=2 zone_nr_conv=1 sector_size=4096
walk "SMR 4096, no limit"
