# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# znbd-server with the stock clients: nbdinfo, nbdcopy, qemu-img, qemu-io,
# fio; and how it is run: --run, socket activation, in the background,
# options that are wrong.

. ./functions.sh
requires nbdinfo nbdcopy qemu-img qemu-io jq

disk=memory:64M,zone-size=4M,conventional=2
server=$(command -v znbd-server)

# serve DISK COMMAND: runs a command with $uri
serve ()
{
  znbd-server -U - "$1" --run "$2"
}

# ---- nbdinfo ----------------------------------------------------------

run nbdinfo --json [ "$server" "$disk" ]
is "$status" 0 "nbdinfo [ znbd-server ... ]: socket activation"
is "$(jq -r '.exports[0]["export-size"]' <<<"$out")" 67108864 "the size"
is "$(jq -r '.exports[0].block_minimum // .exports[0].block_size_minimum' \
      <<<"$out")" 4096 "the minimum block size"
like "$out" 'x-zbd:geometry:version=1,model=host-managed,zones=16,' \
     "the geometry is listed"
run nbdinfo --list -- [ "$server" -e 'a disk' "$disk" ]
like "$out" 'export="a disk":.*export="a disk/zones":' "both exports"
run nbdinfo --map=x-zbd:zones [ "$server" "$disk" ]
is "$(tr -s ' ' <<<"$out")" " 0 8388608 16
 8388608 58720256 545" "--map=x-zbd:zones"
run nbdinfo --map [ "$server" "$disk" ]
like "$out" '0  *8388608  *0  data.*8388608  *58720256  *3  hole,zero' "--map"
# shellcheck disable=SC2016
run serve "$disk" 'qemu-io -f raw -c "write 8M 4M" "$uri" &&
                   nbdinfo --map=x-zbd:reset "$uri" &&
                   nbdinfo --map=x-zbd:zones "$uri"'
like "$out" '0  *67108864  *0.* 8388608  *4194304  *302' \
     "a map of x-zbd:reset resets nothing"

# ---- data -------------------------------------------------------------

head -c 20000000 /dev/urandom >"$tmp/file"
truncate -s 64M "$tmp/file"
# shellcheck disable=SC2016
for kind in "$disk" image; do
  if [ "$kind" = image ]; then
    znbd create --size 64M --zone-size 4M --conventional 2 "$tmp/disk.zbd"
    kind=$tmp/disk.zbd
  fi
  name=${kind%%:*}
  name=${name##*/}
  ok "$name: nbdcopy in and out" serve "$kind" "
    nbdcopy --destination-is-zero --sparse=0 '$tmp/file' \"\$uri\" &&
    nbdcopy \"\$uri\" '$tmp/copy' &&
    qemu-img compare -f raw -F raw '$tmp/copy' \"\$uri\""
  same "$tmp/file" "$tmp/copy" "$name: the same data"
  done
run znbd report --json "$tmp/disk.zbd"
is "$(jq -r '.zones[2:6][].cond' <<<"$out" | xargs)" \
   "full full closed empty" "the image has its zones"
ok "the image is in order" znbd check "$tmp/disk.zbd"
ok "znbd resets its zones by way of the server" \
   serve "$tmp/disk.zbd" 'znbd reset --all "$uri"'
# shellcheck disable=SC2016
ok "qemu-img convert" serve "$tmp/disk.zbd" \
   "qemu-img convert -n -S 0 -f raw -O raw '$tmp/file' \"\$uri\" &&
    qemu-img convert -f raw -O raw \"\$uri\" '$tmp/copy2'"
same "$tmp/file" "$tmp/copy2" "qemu-img: the same data"
# shellcheck disable=SC2016
run serve "$disk" 'qemu-io -f raw \
  -c "write -P 1 0 64k" -c "write -P 2 -f 8M 64k" \
  -c "write -z 8256k 64k" -c "write -P 3 8320k 4k" \
  -c "read -P 1 0 64k" -c "read -P 2 8M 64k" -c "read -P 0 8256k 64k" \
  -c "read -P 3 8320k 4k" -c "read -P 0 8324k 4M" -c "discard 8M 4M" \
  -c "read -P 0 8M 4M" -c "write -P 4 8M 4k" -c "read -P 4 8M 4k" \
  -c flush "$uri"'
is "$status" 0 "qemu-io"
unlike "$out" 'fail|rror' "qemu-io finds what it wrote"
run serve "$disk" 'qemu-io -f raw -c "write 12M 4k" -c "write 12M 4k" "$uri"'
like "$out" 'write failed: Invalid argument' "a write below the pointer fails"

if command -v fio >/dev/null && fio --enghelp | grep -q nbd; then
  ok "fio: sequential writes, verified" serve memory:256M,zone-size=64M "
    fio --name=x --ioengine=nbd --uri=\"\$uri\" --rw=write --bs=16k \
        --iodepth=32 --size=256M --verify=crc32c"
  ok "fio: random reads and writes of a host-aware disk" \
     serve memory:64M,zone-size=16M,model=host-aware "
    fio --name=x --ioengine=nbd --uri=\"\$uri\" --rw=randwrite --bs=4k \
        --iodepth=32 --size=16M --verify=crc32c"
else
  skip "fio" "fio is not here, or without its nbd engine"
fi

# ---- running ----------------------------------------------------------

run serve "$disk" 'echo "$unixsocket"; exit 7'
is "$status" 7 "--run: the command's status"
like "$out" '^/tmp/znbd-[^/]*/socket$' "--run: \$unixsocket"
if [ -e "$(dirname "$out")" ]; then
  fail "the temporary socket is gone"
else
  pass "the temporary socket is gone"
fi
# shellcheck disable=SC2016
run znbd-server -U - "$disk" --run 'kill -9 $$'
is "$status" 137 "--run: the command's signal"

ok "into the background" znbd-server -U "$tmp/s" -P "$tmp/pid" "$disk"
for ((i = 0; i < 100; i++)); do
  [ -s "$tmp/pid" ] && break
  sleep 0.05
done
ok "it serves" nbdinfo "nbd+unix:///?socket=$tmp/s"
kill "$(cat "$tmp/pid")"
for ((i = 0; i < 100; i++)); do
  [ -e "$tmp/s" ] || break
  sleep 0.05
done
is "$(ls "$tmp/s" 2>/dev/null)" "" "SIGTERM: the socket goes"

ok "a socket that is left over is in nobody's way" python3 -c '
import socket, sys
socket.socket (socket.AF_UNIX).bind (sys.argv[1])' "$tmp/s"
ok "... it is taken over" znbd-server -U "$tmp/s" "$disk" --run 'nbdinfo "$uri"'

run znbd-server --help
is "$status" 0 "--help"
like "$out" "usage: znbd-server" "says how"
run znbd-server --version
like "$out" "^znbd-server [0-9]" "--version"

# wrong REGEX ARGUMENT...
wrong ()
{
  local regex=$1
  shift
  run znbd-server "$@"
  is "$status" 1 "znbd-server $*: status 1"
  like "$out" "^znbd-server: [^
]*$regex[^
]*$" "... says in one line why"
}
wrong 'what is to be served'
wrong 'not several' a b
wrong 'No such file' "$tmp/none"
wrong 'unknown option --foo' --foo "$disk"
wrong 'needs an argument' "$disk" -U
wrong '[Ii]s a directory' "$tmp"
wrong 'not a number from 1' -t 0 "$disk"
wrong 'not a time' --reorder-timeout 5 "$disk"
wrong 'neither error nor zero' --gap one "$disk"
wrong 'exclude each other' -U x -p 1 "$disk"
wrong 'zone table is called' -e zones "$disk"
wrong 'zone table is called' -e a/zones "$disk"
wrong 'needs a size' memory:1G
wrong 'zone-size=x is not a size' memory:1G,zone-size=x
wrong 'unknown parameter foo' memory:1G,zone-size=1M,foo=1
wrong 'zone-size= is given twice' memory:1G,zone-size=1M,zone-size=2M
wrong ' size= is given twice' memory:1G,zone-size=1M,size=2G
wrong 'neither 512 nor 4096' memory:1G,zone-size=1M,block-size=1k
wrong 'port x' -p x "$disk"
wrong 'shorter than' -U "/$(printf '%200s' | tr ' ' x)" "$disk"
wrong 'No such file' -P "$tmp/none/pid" -U "$tmp/s2" "$disk"
