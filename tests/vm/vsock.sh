# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# AF_VSOCK, by which virtual machines reach their host: here the kernel's
# loopback of it.

. "$srcdir/vm/functions.sh"

not_running ()
{
  ! kill -0 "$1"
}

load_module vsock_loopback
wait_for [ -e /dev/vsock ] || give_up "there is /dev/vsock"

ok "an image" znbd create --size 64M --zone-size 4M "$tmp/d.zbd"
head -c 1M /dev/urandom >"$tmp/data"

# ---- a server that runs as long as its clients ----------------------------

# When both sides end a connection at once, as behind NBD_CMD_DISC, Linux now
# and then has ENOTCONN for who receives, and nbdcopy fails at its very end.
# What it wrote is looked at below.
name="--run has the URI, and nbdcopy writes through it"
# shellcheck disable=SC2016
run znbd-server --vsock -p 0 "$tmp/d.zbd" \
    --run 'nbdcopy --requests=1 '"$tmp/data"' "$uri"'
case $status:$out in
  0:* | 1:*"nbd_shutdown: recv: Transport endpoint is not connected")
    pass "$name" ;;
  *)
    fail "$name" "status $status" "$out" ;;
esac
# shellcheck disable=SC2016
ok "nbdcopy reads it back" \
   znbd-server --vsock -p 0 -r "$tmp/d.zbd" \
   --run 'nbdcopy "$uri" - | cmp -n 1048576 - '"$tmp/data"
like "$(znbd report "$tmp/d.zbd" --count 1)" 'wp +1048576' \
     "the zone's pointer is where the data ends"

# ---- one that stays, on the default port ----------------------------------

znbd-server --vsock -P "$tmp/pid" "$tmp/d.zbd" ||
  give_up "znbd-server --vsock starts"
server_pid=$(cat "$tmp/pid")
kill_server ()
{
  kill "$server_pid" 2>/dev/null || :
}
cleanup_fn kill_server
uri=nbd+vsock://1
is "$(nbdinfo --size "$uri")" 67108864 "nbdinfo, port 10809"
like "$(nbdinfo --list "$uri")" 'x-zbd:zones' "its zones are offered"
like "$(znbd report "$uri" --count 1)" 'wp +1048576' "znbd report"
ok "a zone is reset" znbd reset "$uri" --zone 0
like "$(znbd report "$uri" --count 1)" 'empty' "and is empty"
run znbd-server --vsock -f memory:size=64M,zone-size=4M
is "$status" 1 "a second server on the port is refused"
like "$out" '--vsock port 10809: Address already in use' "and told why"
kill_server
ok "SIGTERM ends it" wait_for not_running "$server_pid"
