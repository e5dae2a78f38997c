# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# How znbd-server is run: where it listens, as whom, in the background, what
# it says where, how it ends; one option at a time, and wrong ones.

. ./functions.sh
requires nbdinfo nbdcopy

cd "$tmp" || exit 1
disk=memory:64M,zone-size=4M
size=67108864

# serve ARGUMENT...: what --run's command prints
serve ()
{
  run znbd-server "$@"
}

# wrong REGEX ARGUMENT...: refused, in one line
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

# ---- TCP --------------------------------------------------------------

# shellcheck disable=SC2016
size_of='nbdinfo --size "$uri"; echo "$uri" "$port" "$unixsocket"'
serve -p 0 "$disk" --run "$size_of"
like "$out" "^$size
nbd://localhost:([0-9]+) ([0-9]+) $" "port 0: any"
is "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "\$port is \$uri's"
serve -p 0 -i 127.0.0.1 "$disk" --run "$size_of"
like "$out" "^$size
nbd://127.0.0.1:[0-9]+ " "an IPv4 address"
serve -p 0 -i localhost -e 'a b/ü' "$disk" --run "$size_of"
like "$out" "^$size
nbd://[^ ]*:[0-9]+/a%20b/%C3%BC " "a host's name, and the export's in the URI"
if [ -e /proc/net/if_inet6 ]; then
  serve -p 0 -i ::1 "$disk" --run "$size_of"
  like "$out" "^$size
nbd://\[::1\]:[0-9]+ " "an IPv6 address"
  # shellcheck disable=SC2016
  serve -p 0 "$disk" --run 'nbdinfo --size "nbd://127.0.0.1:$port" &&
                            nbdinfo --size "nbd://[::1]:$port"'
  is "$out" "$size
$size" "port 0 is the same one for IPv4 and IPv6"
else
  skip "an IPv6 address" "this machine has no IPv6"
  skip "port 0 is the same one for IPv4 and IPv6" "this machine has no IPv6"
fi
# A port that is taken, and by whom it is wanted.
# shellcheck disable=SC2016
serve -p 0 -i 127.0.0.1 "$disk" --run '
  znbd-server -p "$port" -f '"$disk"'
  znbd-server -p "$port" -i 127.0.0.1 -f '"$disk"'; echo "$? $port"'
port=${out##* }
is "$out" "znbd-server: 0.0.0.0 port $port: Address already in use
znbd-server: 127.0.0.1 port $port: Address already in use
1 $port" "a port that is in use"
wrong '192.0.2.1 port 10809: Cannot assign' -i 192.0.2.1 "$disk"
wrong 'no.such.host.invalid port 10809: ' -i no.such.host.invalid "$disk"
for port in 65536 99999999999 -1 ' 5' '5 '; do
  wrong 'not a number from 0 to 65535' -p "$port" "$disk"
done
wrong '--port nonesuch: there is no service' -p nonesuch "$disk"
wrong '--port 0x10: there is no service' -p 0x10 "$disk"
for option in unix port ipaddr tls-certificates tls-psk pidfile user group \
              threads log; do
  wrong "--$option has an empty argument" --$option= "$disk"
done
wrong '--unix - is for --run' -U - "$disk"
wrong 'exportname is not UTF-8 from its byte 2 on' -e $'a\xff' "$disk"
wrong '-ipaddr ::1 and --ipaddr ::2: give one' -i ::1 -i ::2 "$disk"
wrong 'exclude each other' -U x -i ::1 "$disk"

# ---- vsock ------------------------------------------------------------

wrong 'exclude each other' -U x --vsock "$disk"
wrong 'exclude each other' -i ::1 --vsock "$disk"
wrong 'reconnect is for the disk of another server' --reconnect 1s "$disk"
wrong 'have no names' --vsock -p nbd "$disk"
wrong 'not a number from 0 to 4294967294' --vsock -p 4294967295 "$disk"
if [ ! -e /dev/vsock ]; then
  skip "vsock" "this machine has no /dev/vsock"
else
  # shellcheck disable=SC2016
  serve --vsock -p 0 "$disk" --run 'echo "$uri" "$port"
    znbd-server --vsock -f -p "$port" '"$disk"
  like "$out" '^nbd\+vsock://1:([0-9]+) [0-9]+
znbd-server: --vsock port ([0-9]+): Address already in use$' "vsock listens"
  is "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "vsock: port 0 is any"
  ok "... that is a port in a URI" [ "${BASH_REMATCH[1]}" -lt $((1 << 31)) ]
  if python3 -c '
import socket
s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
s.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
s.listen()
c = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
c.settimeout(3)
c.connect((1, s.getsockname()[1]))' 2>/dev/null; then
    # shellcheck disable=SC2016
    serve --vsock -p 0 "$disk" --run 'nbdinfo --size "$uri"'
    is "$out" "$size" "vsock: nbdinfo"
  else
    skip "vsock: nbdinfo" \
         "this machine's vsock has no loopback (module vsock_loopback)"
  fi
fi

# ---- Unix sockets -----------------------------------------------------

echo precious >file
wrong 'file: there is a file that is no socket' -U file "$disk"
is "$(cat file)" precious "a file in place of the socket is left alone"
# shellcheck disable=SC2016
serve -U sock "$disk" --run '
  znbd-server -U sock -f '"$disk"'; nbdinfo --size "$uri"; ls -d sock'
like "$out" "sock: Address already in use
$size
sock$" "a socket that is listened on is left to its server"
is "$(ls sock 2>/dev/null)" "" "the socket goes at the end"
# shellcheck disable=SC2016
serve -U sock "$disk" --run '
  rm sock; znbd-server -U sock -P other '"$disk"
is "$(nbdinfo --size "nbd+unix:///?socket=$tmp/sock")" "$size" \
   "another server's socket in its place does not"
kill "$(cat other)"
# Several servers that find a socket whose server was killed take turns, by a
# lock of the folder, for a second at most.
mkdir turns
python3 -c '
import fcntl, os, socket, subprocess, sys, time
socket.socket(socket.AF_UNIX).bind("turns/sock")
folder = os.open("turns", os.O_RDONLY)
fcntl.flock(folder, fcntl.LOCK_EX)
for i in range(20):
    begin = time.monotonic()
    server = subprocess.Popen(sys.argv[1:])
    time.sleep(0.3)
    waits = server.poll() is None and os.path.exists("turns/sock")
    soon = time.monotonic() - begin < 0.9
    served = server.wait() == 0
    if soon:
        break
    socket.socket(socket.AF_UNIX).bind("turns/sock")
print(waits, served, os.path.exists("turns/sock"))
' znbd-server -U turns/sock "$disk" --run true >out
is "$(cat out)" "True True False" "servers take turns at a stale socket"
# Its server has as many connections waiting as may be.
python3 -c '
import socket, subprocess, sys
s = socket.socket(socket.AF_UNIX)
s.bind("full")
s.listen(0)
waiting = socket.socket(socket.AF_UNIX)
waiting.connect("full")
sys.exit(subprocess.run(sys.argv[1:], timeout=20).returncode)' \
  znbd-server -U full -f "$disk" 2>err
is "$? $(tail -n 1 err)" "1 znbd-server: $tmp/full: Address already in use" \
   "a server that takes no connections just now is not waited for"
# Standard error would have a word of yes's, were SIGPIPE ignored.
serve -U - "$disk" --run 'yes | head -n 1'
is "$out" y "a command of --run has SIGPIPE as it ought to be"
wrong 'none/sock: No such file' -U none/sock "$disk"
serve -U "s%&? ü" "$disk" --run "$size_of"
like "$out" "^$size
nbd\+unix:///\?socket=.*/s%25%26%3F%20%C3%BC  " "a path is escaped in \$uri"

# ---- another user -----------------------------------------------------

wrong '--user no-such-user: there is no such user' -u no-such-user "$disk"
wrong '--group no-such-group: there is no such' -g no-such-group "$disk"
wrong '--user 4294967295: there is no such user' -u 4294967295 "$disk"
wrong '--user 12x: there is no such user' -u 12x "$disk"
wrong '--user 54321 has no name and so no group' -u 54321 "$disk"
if [ "$(id -u)" -eq 0 ]; then
  chmod 755 "$tmp"
  nobody=$(id -u nobody) group=$(id -g nobody)
  znbd create --size 64M --zone-size 4M disk.zbd >/dev/null
  chmod 600 disk.zbd
  # shellcheck disable=SC2016
  serve -U - -u nobody -P pid disk.zbd --run 'id -u; id -g; id -G
    nbdsh -u "$uri" -c "h.pwrite (b\"z\" * 4096, 0)" && nbdinfo --size "$uri"
    grep -h "^[UG]id\|^Groups" "/proc/$PPID/status" | xargs
    [ "$(cat pid)" = "$PPID" ] && echo pid'
  is "$out" "$nobody
$group
$group
$size
Uid: $nobody $nobody $nobody $nobody Gid: $group $group $group $group Groups: $group
pid" "-u: the server, its command, its socket, for root's image"
  like "$(znbd report disk.zbd --count 1)" 'closed .* wp  *4096' \
       "-u: root's image was written, and closed"
  is "$(stat -c %u disk.zbd)" 0 "-u: it is still root's"
  serve -U - -u "$nobody" -g 12 "$disk" --run 'id -u; id -G; nbdinfo --size "$uri"'
  is "$out" "$nobody
12
$size" "-u and -g, numbers"
  serve -U - -u 54321 -g nogroup "$disk" --run 'id -u'
  is "$out" 54321 "-u of somebody without a name"
  serve -U - -g nogroup "$disk" --run 'id -u; id -gn'
  is "$out" "0
nogroup" "-g alone"
  # The folder of this socket is not nobody's.
  serve -U sock -v -u nobody "$disk" --run 'stat -c %u sock'
  like "$out" "$nobody.*sock: Permission denied" "-u: who cannot remove it"
  serve -U sock "$disk" --run true
  is "$status" 0 "... the next one does"
  # As nobody nothing can be changed.
  mkdir as-nobody
  chown nobody as-nobody
  run setpriv --reuid "$nobody" --clear-groups \
      znbd-server -U - -u root "$disk" --run true
  like "$out" 'user root: Operation not permitted: start the server as root' \
       "only root changes users"
else
  skip "-u and -g" "must run as root"
fi

# ---- in the background ------------------------------------------------

ok "in the background: the command ends" \
   znbd-server -U sock -P pid -e x "$disk"
like "$(cat pid 2>/dev/null)" '^[0-9]+$' "... when the pid file is written"
pid=$(cat pid)
ok "... and it serves" nbdinfo "nbd+unix:///x?socket=$tmp/sock"
is "$(readlink "/proc/$pid/cwd")" / "its folder is /"
is "$(readlink "/proc/$pid/fd/2")" /dev/null "standard error is let go"
kill "$pid"
ok "it ends" soon gone "$pid"
ok "-v --log=stderr keeps standard error" bash -c "
  znbd-server -v --log=stderr -U sock -P pid $disk 2>err </dev/null"
nbdinfo "nbd+unix:///?socket=$tmp/sock" >/dev/null
kill "$(cat pid)"
ok "it ends" soon gone "$(cat pid)"
like "$(cat err)" 'znbd-server: connection .*Terminated: the server stops' \
     "and what it says is there"
# What fails late is still seen: here no thread can be started.
# (A sanitizer wants address space without end.)
if [ -n "${ZNBD_SANITIZER:-}" ]; then
  skip "a late failure" "a sanitizer is in the way"
elif command -v prlimit >/dev/null; then
  run prlimit --as=400000000 znbd-server -t 1024 -U sock "$disk"
  is "$status" 1 "in the background: a late failure has a status"
  like "$out" '^znbd-server: ' "... and a message"
else
  skip "a late failure" "prlimit is not installed"
fi

# syslog: by a /dev/log of our own, where we may have one.
if [ "$(id -u)" -eq 0 ] && unshare -m true 2>/dev/null; then
  cat >syslog.sh <<'END'
mount -t tmpfs none /dev || exit 1
mknod -m 666 /dev/null c 1 3
python3 -c '
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("/dev/log")
s.settimeout(20)
print("listening", flush=True)
while True:
    line = s.recv(2000).decode()
    print(line, flush=True)
    if "stops" in line:
        break' >messages &
logger=$!
until grep -q listening messages; do sleep 0.05; done
# Their io_uring and eventfd need no /dev.
znbd-server -v -U sock -P pid "$1" || exit 1
nbdinfo "nbd+unix:///?socket=$PWD/sock" >/dev/null
kill "$(cat pid)"
wait "$logger"
END
  run timeout 30 unshare -m bash syslog.sh "$disk"
  like "$(cat messages)" 'znbd-server\[[0-9]+\]: connection [0-9]+: export "' \
       "in the background messages go to the system log"
else
  skip "the system log" "must run as root, with mount namespaces"
fi
serve --log=null -v -U - "$disk" --run true
is "$out" "" "--log=null"
wrong 'neither stderr nor syslog nor null' --log=file "$disk"
wrong 'No such file' -P none/pid -U sock "$disk"
wrong 'No space left' -P /dev/full -U sock "$disk"
for option in --help --version "-D help"; do
  run bash -c "znbd-server $option >/dev/full"
  is "$status:$out" "1:znbd-server: standard output: No space left on device" \
     "znbd-server $option: output that is lost is an error"
done
echo 'my only copy' >precious
wrong 'no pid file' -P precious -U sock "$disk"
is "$(cat precious)" 'my only copy' "-P overwrites nothing but pid files"
is "$(ls sock 2>/dev/null)" "" "a pid file that cannot be: no socket stays"

# ---- the end ----------------------------------------------------------

serve -U - "$disk" --run 'exit 3'
is "$status" 3 "--run: the command's status"
serve -U - "$disk" --run 'kill -TERM $$'
is "$status" 143 "--run: the command's signal"
# shellcheck disable=SC2016
serve -U - "$disk" --run 'trap "echo told; exit 4" TERM
  kill -TERM $PPID; sleep 5 & wait $!'
is "$status$out" "0told" "a server that is ended ends its command"

# --exit-with-parent: the shell in between is killed.
# A change of user must not undo it.
users=('')
[ "$(id -u)" -ne 0 ] || users+=("-u nobody")
chmod 777 "$tmp"
for user in "${users[@]}"; do
  rm -f pid
  # shellcheck disable=SC2086
  bash -c "znbd-server --exit-with-parent -U sock -P pid $user $disk & wait" \
       >/dev/null 2>&1 &
  parent=$!
  ok "--exit-with-parent $user: it serves" soon test -s pid
  pid=$(cat pid)
  kill -KILL "$parent"
  ok "--exit-with-parent $user: it ends" soon gone "$pid"
  gone "$pid" || kill -KILL "$pid"
  is "$(ls sock 2>/dev/null)" "" "--exit-with-parent $user: in order"
done 2>/dev/null

# SIGTERM drains: a client that takes no answer holds it for 5 seconds, and
# another signal meanwhile changes nothing.
rm -f pid disk.zbd
znbd create --size 64M --zone-size 4M disk.zbd >/dev/null
znbd-server -f -U sock -P pid disk.zbd &
server=$!
soon test -s pid
cat >lazy.py <<'END'
import os
import signal
import socket
import struct
import sys
import time

import nbd_raw as n

r = n.Raw("sock").begin()
assert r.write(0, b"w" * 65536).error == 0
# More answers than sockets hold, and none taken.
for i in range(200):
    r.send(n.CMD_READ, 0, 65536)
time.sleep(0.5)
end = time.monotonic() + 15
pid = int(sys.argv[1])
os.kill(pid, signal.SIGTERM)
time.sleep(0.5)
os.kill(pid, signal.SIGTERM)
os.kill(pid, signal.SIGINT)
time.sleep(0.5)
print("drains" if os.path.exists("/proc/%d/fd/0" % pid) else "ended")
print("refuses" if socket.socket(socket.AF_UNIX).connect_ex("sock")
      else "listens")
while time.monotonic() < end and os.path.exists("/proc/%d/fd/0" % pid):
    time.sleep(0.1)
END
run python3 lazy.py "$server"
is "$out" "drains
refuses" "SIGTERM: answers are waited for, whatever other signals come"
wait "$server"
is "$?" 0 "... but not for ever, and the status is 0"
is "$(znbd check disk.zbd >/dev/null; echo $?)" 0 "the image is in order"
like "$(znbd report disk.zbd --count 1)" ' wp  *65536' "with what was written"

# ---- -D ---------------------------------------------------------------

run znbd-server -D help
is "$status" 0 "-D help"
flags=$(sed -n 's/^-D \([^ ]*\) .*/\1/p' <<<"$out")
is "$(wc -w <<<"$flags")" 7 "... lists the flags"
for flag in $flags; do
  like "$(cat "$abs_top_srcdir/server/znbd-server.pod")" "B<$flag=" \
       "... $flag is in the man page"
done
wrong 'there is no such flag, but server.options, ' -D zones.foo=1 "$disk"
wrong 'there is no such flag' -D zones "$disk"
wrong 'like zones.transition=1' -D zones.transition "$disk"
wrong 'like zones.transition=1' -D zones.transition=x "$disk"
rm -f disk.zbd
znbd create --size 64M --zone-size 4M --max-open 1 disk.zbd >/dev/null

# said FLAG COMMAND: what is said of what nbdsh does
said ()
{
  run znbd-server -U - -D "$1" disk.zbd --run "nbdsh -u \"\$uri\" -c '$2'"
}
said server.options=1 ''
like "$out" 'connection [0-9]+: NBD_OPT_GO, ' "-D server.options"
unlike "$out" 'request' "... says nothing else"
said server.requests=1 'h.pwrite(bytes(4096), 0, nbd.CMD_FLAG_FUA)'
like "$out" 'request cookie [0-9]+ WRITE 4096 at 0 FUA( PAYLOAD_LEN)?$' \
     "-D server.requests"
said server.replies=1 '
try:
  h.pwrite(bytes(4096), 0)
except nbd.Error:
  pass'
like "$out" 'reply cookie [0-9]+ WRITE 4096 at 0( PAYLOAD_LEN)?: EINVAL, .*below the write pointer of zone 0.* after [0-9]+ us' \
     "-D server.replies"
unlike "$out" ': ok after' "... but not those without error"
said server.replies=2 'h.pread(4096, 0)'
like "$out" 'READ 4096 at 0: ok after [0-9]+ us$' "-D server.replies=2 does"
said server.slow=300 'h.trim(4 << 20, 0); h.pread(4096, 0)
try:
  h.pwrite(bytes(4096), 8192)
except nbd.Error:
  pass'
is "$(grep -c reply <<<"$out")" 1 "-D server.slow: slow ones alone"
like "$out" 'WRITE 4096 at 8192[^:]*: EINVAL.* after [0-9]{6,} us' "... this one"
said zones.transition=1 'h.pwrite(bytes(4096), 0); h.pwrite(bytes(4096), 4 << 20)'
like "$out" 'zone 0: empty to implicit-open, .*
.*zone 0: implicit-open to closed, pointer 4096 .*
.*zone 1: empty to implicit-open, .* 1 open, 2 active|zone 1: .*' \
     "-D zones.transition: an eviction is seen"
said disk.park=1 '
b = nbd.Buffer.from_bytearray(bytearray(4096))
c = h.aio_pwrite(b, (8 << 20) + 4096)
h.pwrite(bytes(4096), 8 << 20)
while not h.aio_command_completed(c): h.poll(-1)'
like "$out" "zone 2: write of 4096 at 8392704 waits up to 1000 ms; 4096 .*
.*zone 2: write of 4096 at 8392704 has waited [0-9]+ ms" "-D disk.park"
said image.commit=1 'h.pwrite(bytes(4096), 12 << 20); h.flush()'
like "$out" 'disk.zbd: commit [0-9]+: 1 zones, [0-9]+ us' "-D image.commit"
