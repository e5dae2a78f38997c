# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# btrfs, which appends, on a remote disk; and the example of znbd(1).

. "$srcdir/vm/attach_fs.sh"

load_module btrfs
disk --size 2G --zone-size 32M --max-open 14 --max-active 28

# The man page's example, with this server for the one there.
sed -n '/^=head2 Put a zoned file system/,/^=head2 See whether/s/^ //p' \
    "$abs_top_srcdir/client/znbd.pod" |
  sed "s|nbd://server/|'$uri'|; s| */mnt\$| $tmp/example|;
       s|/mnt|$tmp/example|" >"$tmp/example.sh"
like "$(cat "$tmp/example.sh")" 'mkfs.btrfs' "znbd(1) has an example"
mkdir "$tmp/example"
ok "it works" bash -e "$tmp/example.sh"
ok "all its zones are reset" znbd reset --all "$uri"

make_fs () { mkfs.btrfs -q "$dev"; }
check_fs () { btrfs check "$dev"; }
course btrfs
