# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# znbd-server's systemd units: systemd's own tools find nothing wrong with
# them, and the system calls that they leave are all that the server makes.
# Started as systemd starts it: with several sockets, and told when it is
# ready.  (systemd itself does not run here.)

. ./functions.sh
requires nbdinfo nbdcopy

cd "$tmp" || exit 1
disk=memory:64M,zone-size=4M

# ---- the units --------------------------------------------------------

units=$abs_top_builddir/server
like "$(cat "$units/znbd-server@.service")" \
     'EnvironmentFile=/[^@]*/znbd/%i.conf.*ExecStart=/[^@]*/znbd-server ' \
     "the units have the folders of the installation"
if command -v systemd-analyze >/dev/null; then
  sed "s|^ExecStart=[^ ]*|ExecStart=$units/znbd-server|" \
      "$units/znbd-server@.service" >znbd-server@disk.service
  cp "$units/znbd-server@.socket" znbd-server@disk.socket
  run systemd-analyze verify --man=no ./znbd-server@disk.service \
      ./znbd-server@disk.socket
  is "$status$out" 0 "systemd-analyze verify"
  sed "s|^ExecStart=[^ ]*|ExecStart=$abs_top_builddir/client/znbd|" \
      "$abs_top_builddir/client/znbd-attach@.service" >znbd-attach@disk.service
  run systemd-analyze verify --man=no ./znbd-attach@disk.service
  is "$status$out" 0 "systemd-analyze verify: znbd-attach@.service"
  # Less than 1 of 10; an address filter is the administrator's.
  run systemd-analyze security --offline=yes --threshold=9 \
      ./znbd-server@disk.service
  is "$status" 0 "systemd-analyze security"
  diag "$(tail -n 1 <<<"$out")"
else
  skip "systemd-analyze verify" "systemd-analyze is not installed"
  skip "systemd-analyze verify: znbd-attach@.service" \
       "systemd-analyze is not installed"
  skip "systemd-analyze security" "systemd-analyze is not installed"
fi

# calls_of SET...: the system calls in sets of systemd's
calls_of ()
{
  local set line
  for set; do
    if [ "${set#@}" = "$set" ]; then
      echo "$set"
      continue
    fi
    while read -r line; do
      case $line in
        "$set" | \#*) ;;
        *) calls_of "$line" ;;
      esac
    done < <(systemd-analyze syscall-filter "$set")
  done
}

# (A sanitizer makes calls of its own, and none looks for leaks beneath
# strace.)
if [ -z "${ZNBD_PRELOAD:-}" ] &&
   command -v systemd-analyze >/dev/null && command -v strace >/dev/null &&
   strace -o /dev/null true 2>/dev/null; then
  znbd create --size 64M --zone-size 4M disk.zbd >/dev/null
  head -c 20M /dev/urandom >data
  # strace's socket is inherited, as systemd's is.
  strace -f -qq -o calls znbd-server -f -v -U sock -P pid disk.zbd 2>log &
  tracer=$!
  soon test -s pid
  u="nbd+unix:///?socket=$tmp/sock"
  ok "a server to look at" nbdcopy --destination-is-zero --sparse=0 data "$u"
  ok "... reads" nbdcopy "$u" back
  ok "... flushes and resets" \
     nbdsh -u "$u" -c 'h.flush(); h.trim(4 << 20, 0)'
  kill "$(cat pid)"
  wait "$tracer"
  # What comes before "execve" is strace's; sockets are systemd's to make.
  sed -n 's/^[0-9]* *\([a-z_0-9]*\)(.*/\1/p' calls | sort -u >made
  sed -n 's/^SystemCallFilter=//p' znbd-server@disk.service >filters
  # shellcheck disable=SC2046
  calls_of $(grep -v '^~' filters) | sort -u >allowed
  # shellcheck disable=SC2046
  calls_of $(sed -n 's/^~//p' filters) | sort -u >denied
  is "$(comm -23 made allowed | xargs)" "" "all its system calls are allowed"
  # It wants more descriptors than it has, and does without.
  is "$(comm -12 made denied | xargs)" "" "none is denied"
  isnt "$(grep -c io_uring_enter made)" 0 "io_uring is among them"
else
  skip "system calls" "systemd-analyze or strace is missing, or not allowed"
fi

# ---- how systemd starts it --------------------------------------------

# What a manager does: sockets from 3 on, and one that it listens on for
# what the server tells.  Prints what it is told.
cat >manager.py <<'END'
import os
import signal
import socket
import subprocess
import sys

disk, notify_name = sys.argv[1:3]
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.bind(notify_name.replace("@", "\0", 1))
told.settimeout(20)
unix = socket.socket(socket.AF_UNIX)
unix.bind("unix")
tcp = socket.create_server(("127.0.0.1", 0))
tcp6 = socket.create_server(("::1", 0), family=socket.AF_INET6) \
    if os.path.exists("/proc/net/if_inet6") else unix
sockets = [unix, tcp, tcp6]
for s in sockets:
    s.listen()


def child():
    high = [os.dup2(s.fileno(), 100 + i) for i, s in enumerate(sockets)]
    for i, fd in enumerate(high):
        os.dup2(fd, 3 + i)
        os.close(fd)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(sockets))
    os.environ["NOTIFY_SOCKET"] = notify_name


server = subprocess.Popen(["znbd-server", disk] + sys.argv[3:],
                          preexec_fn=child, close_fds=False)
try:
    print("told", told.recv(1000).decode(), flush=True)
    for uri in ("nbd+unix:///?socket=unix",
                "nbd://127.0.0.1:%d" % tcp.getsockname()[1],
                "nbd://[::1]:%d" % tcp6.getsockname()[1]
                if tcp6 is not unix else "nbd+unix:///?socket=unix"):
        subprocess.run(["nbdinfo", "--size", uri], check=True)
    server.send_signal(signal.SIGTERM)
    print("told", told.recv(1000).decode(), flush=True)
    print("status", server.wait(20))
finally:
    server.kill()
END
for name in "$tmp/notify" @znbd-test-$$; do
  rm -f unix
  run python3 manager.py "$disk" "$name"
  is "$out" "told READY=1
67108864
67108864
67108864
told STOPPING=1
status 0" "three sockets, READY and STOPPING told to ${name%"$$"}"
done
# shellcheck disable=SC2016
run env NOTIFY_SOCKET="$tmp/nobody" znbd-server -U - "$disk" \
        --run 'sleep 1; echo "it runs ${NOTIFY_SOCKET-alone}"'
like "$out" 'cannot tell the service manager READY=1.*it runs alone' \
     "a manager that is gone is no reason not to serve"
run env NOTIFY_SOCKET=relative znbd-server -U - "$disk" --run true
like "$out" 'NOTIFY_SOCKET relative is no socket' "a socket of no use"

# Lines for the journal carry their priority.
run bash -c "exec 2>journal
  JOURNAL_STREAM=\$(stat -L -c %d:%i journal) \
  znbd-server -v -U - $disk --run 'nbdinfo \"\$uri\"' >/dev/null"
like "$(cat journal)" '^<6>connection [0-9]+: ' "the journal gets priorities"

# Hand-overs that are wrong.
run bash -c 'LISTEN_PID=$$ LISTEN_FDS=1 exec znbd-server '"$disk"' 3</dev/null'
like "$out" '^znbd-server: descriptor 3 of LISTEN_FDS is no listening socket$' \
     "a descriptor that is no socket"
for n in 0 65 x -1 "" 1x 4294967297; do
  run bash -c "LISTEN_PID=\$\$ LISTEN_FDS=$n exec znbd-server $disk"
  like "$out" '^znbd-server: LISTEN_FDS is .*from 1 to 64 sockets' \
       "LISTEN_FDS=$n"
done
run bash -c 'LISTEN_PID=1 LISTEN_FDS=1 exec znbd-server -U - '"$disk"' \
             --run "echo \$uri"'
like "$out" '^nbd\+unix' "sockets for another process are not taken"
cat >activate.py <<'END'
import os, socket, sys
s = socket.create_server(("127.0.0.1", 0))
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), "1"
os.execvp("znbd-server", ["znbd-server"] + sys.argv[1:])
END
for option in "-U $tmp/s" "-p 1" "-i ::1" --vsock "--run true"; do
  # shellcheck disable=SC2086
  run python3 activate.py $option "$disk"
  is "$status" 1 "with sockets handed over: $option is refused"
  like "$out" '^znbd-server: with socket activation there is no ' \
       "... with a reason"
done
