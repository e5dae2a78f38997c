# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# zonefs on a remote disk: its zones as files, written by O_DIRECT at their
# ends.  (Debian has no mkzonefs: a superblock is made here, of the layout in
# the kernel's Documentation/filesystems/zonefs.rst and fs/zonefs/zonefs.h.)

. "$srcdir/vm/attach_fs.sh"

load_module zonefs
disk --size 256M --zone-size 8M --conventional 2

make_fs ()
{
  python3 - <<'END' | dd of="$dev" bs=4096 oflag=direct status=none
import struct, sys, uuid, zlib

def superblock(crc):
    return struct.pack("<II64s16sQIII", 0x5a4f4653, crc, b"znbd",
                       uuid.UUID(int=1).bytes, 0, 0, 0, 0).ljust(4096, b"\0")

sys.stdout.buffer.write(superblock(zlib.crc32(superblock(0)) ^ 0xffffffff))
END
}

# write_zones FOLDER: files of several zones, in pieces, in turn
write_zones ()
{
  local i zone
  for ((i = 0; i < 12; i++)); do
    for zone in 0 1 2 3; do
      dd if="$tmp/data.$zone" of="$1/$zone" bs=64k count=4 \
         skip=$((i * 4)) iflag=fullblock oflag=direct,append conv=notrunc \
         status=none || return 1
    done
    sleep 0.1
  done
}

attach
make_fs
mnt=$tmp/mnt
mount_at "mounted" "$dev" "$mnt"
is "$(ls "$mnt/seq" | wc -l)" 30 "a file for each sequential zone"
for zone in 0 1 2 3; do
  head -c 3M /dev/urandom >"$tmp/data.$zone"
done
amid_kills write_zones "$mnt/seq"
ok "a zone is finished by truncating it" truncate -s 8M "$mnt/seq/2"
ok "a conventional one is written anywhere" \
   dd if="$tmp/data.0" of="$mnt/cnv/0" bs=1M seek=1 conv=notrunc status=none
zones_are_the_same "the zones are the server's"
like "$(znbd report --offset 32M --count 1 "$uri")" ' full ' "one is full"
ok "unmounted" umount "$mnt"
detach

end_server
serve
attach
mount_at "attached and mounted again" "$dev" "$mnt"
for zone in 0 1 2 3; do
  ok "file $zone is what was written" \
     cmp -n $((3 << 20)) "$tmp/data.$zone" "$mnt/seq/$zone"
done
is "$(stat -c %s "$mnt/seq/0" "$mnt/seq/2" | xargs)" "3145728 8388608" \
   "and as long"
ok "the conventional one, too" \
   cmp -i 0:1048576 "$tmp/data.0" "$mnt/cnv/0" -n $((3 << 20))
ok "a zone is reset by truncating it" truncate -s 0 "$mnt/seq/0"
like "$(znbd report --offset 16M --count 1 "$uri")" ' empty ' "it is empty"
ok "unmounted at last" umount "$mnt"
detach
