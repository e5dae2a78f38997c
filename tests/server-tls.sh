# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# znbd-server's TLS with stock clients: the man page's commands make keys and
# certificates; nbdinfo and nbdcopy use them; and options that are wrong.

. ./functions.sh
requires nbdinfo nbdcopy certtool psktool

disk=memory:64M,zone-size=4M,conventional=2
cd "$tmp" || exit

# ---- the man page's commands ------------------------------------------

# The code of its section TLS, as it stands there; the server, which would
# not end, is left to the lines below.
awk '/^=head1/ { tls = $2 == "TLS" } tls && /^ / { print substr ($0, 2) }' \
    "$abs_top_srcdir/server/znbd-server.pod" >commands
is "$(grep -c '^znbd-server --tls=require' commands)" 2 \
   "the page starts two servers"
is "$(grep -c "^nbdinfo 'nbds://" commands)" 2 "and two clients"
grep -Ev '^(znbd-server|nbdinfo) ' commands >commands.sh
ok "the page's commands make keys and certificates" \
   bash -e -o pipefail commands.sh
is "$(ls pki)" "ca-cert.pem
ca-key.pem
server-cert.pem
server-key.pem" "these are the files"

# free_port: sets $port
free_port ()
{
  port=$(python3 -c '
import socket
s = socket.socket ()
s.bind (("localhost", 0))
print (s.getsockname ()[1])')
}

# The servers and clients of the page, on another port.
sed -n 's/^znbd-server \(.*\) disk.zbd$/\1/p' commands >servers
sed -n "s/^nbdinfo '\(.*\)'$/\1/p" commands >clients
while read -r options && read -r client <&3; do
  free_port
  # shellcheck disable=SC2086
  ok "$options: the page's client" znbd-server -p "$port" $options "$disk" \
     --run "nbdinfo '${client/localhost/localhost:$port}'"
  like "$out" 'with TLS' "... says that this is TLS"
done <servers 3<clients

# ---- nbdinfo and nbdcopy, by the server's own URI ----------------------

head -c 20000001 /dev/urandom >file
truncate -s 64M file
for options in --tls-certificates=pki --tls-psk=keys.psk; do
  for socket in "-U -" -p; do
    if [ "$socket" = -p ]; then
      free_port
      socket="-p $port"
    fi
    rm -f copy
    # shellcheck disable=SC2086,SC2016
    ok "$options $socket: nbdcopy in and out" \
       znbd-server $socket -t 4 --tls=require $options "$disk" --run '
         nbdcopy --destination-is-zero file "$uri" && nbdcopy "$uri" copy'
    same file copy "... the same data"
  done
  # shellcheck disable=SC2016
  run znbd-server -U - -e 'a disk' --tls=require "$options" "$disk" \
      --run 'echo "$tls $uri"; nbdinfo --map=x-zbd:zones "$uri"'
  like "$out" '^2 nbds\+unix://(alice@)?/a%20disk\?socket=/tmp/.*&tls-' \
       "$options: \$tls and \$uri"
  like "$out" ' 8388608  *58720256  *545' "--map=x-zbd:zones"
  # shellcheck disable=SC2016
  run znbd-server -U - "$options" "$disk" \
      --run 'echo "$tls $uri"; nbdinfo --size "$uri"; nbdinfo "nbds${uri#nbd}&tls-'"${options#--tls-}"'"'
  like "$out" '^1 nbd\+unix://.*67108864' "without --tls it is on, plain too"
done
# shellcheck disable=SC2016
run znbd-server -U - "$disk" --run 'echo "<$tls> $uri"'
like "$out" '^<> nbd\+unix://' "no TLS: \$tls and \$uri"

# ---- clients that do not get in ----------------------------------------

mkdir other
certtool --generate-privkey --outfile other/ca-key.pem 2>/dev/null
certtool --generate-self-signed --load-privkey other/ca-key.pem \
         --template ca.info --outfile other/ca-cert.pem 2>/dev/null
echo "alice:$(printf '%064d' 0)" >wrong.psk
echo "bob:$(cut -d: -f2 keys.psk)" >bob.psk

# gets_in_not PATTERN TEXT OPTION... CLIENT: what the server says in the end.
# (By TCP: on a Unix socket libnbd looks at no certificate.)
gets_in_not ()
{
  local pattern=$1 text=$2 client=${*: -1}
  shift 2
  run znbd-server -v -p "$port" "${@:1:$#-1}" "$disk" --run "
    nbdinfo --size \"$client\" && echo IN; echo serves"
  unlike "$out" '(^|
)IN' "$text does not get in"
  like "$out" "$pattern" "... $text: it is said why"
}
free_port
at=localhost:$port
gets_in_not 'TLS first' "without TLS" \
  --tls=require --tls-certificates=pki "nbd://$at"
gets_in_not 'without TLS' "TLS where there is none" \
  --tls=off --tls-certificates=pki "nbds://$at/?tls-certificates=pki"
gets_in_not 'certificate verification' "who does not know the authority" \
  --tls=require --tls-certificates=pki "nbds://$at/?tls-certificates=other"
gets_in_not 'TLS: ' "who has no certificate" \
  --tls=require --tls-certificates=pki --tls-verify-peer \
  "nbds://$at/?tls-certificates=pki"
gets_in_not 'TLS: ' "who has another key" --tls=require --tls-psk=keys.psk \
  "nbds://alice@$at/?tls-psk-file=wrong.psk"
gets_in_not 'TLS: ' "who is another user" --tls=require --tls-psk=keys.psk \
  "nbds://bob@$at/?tls-psk-file=bob.psk"

# ---- options and files that are wrong ----------------------------------

# wrong REGEX ARGUMENT...
wrong ()
{
  local regex=$1
  shift
  run znbd-server -f -U "$tmp/s" "$@" "$disk"
  is "$status" 1 "$*: status 1"
  like "$out" "^znbd-server: [^
]*$regex[^
]*$" "... says in one line why"
}
wrong 'neither off nor on nor require' --tls=yes
mkfifo fifo.psk
wrong 'no regular file' --tls-psk=fifo.psk
wrong 'exclude each other' --tls-psk=keys.psk --tls-certificates=pki
wrong '--tls-verify-peer is for certificates' --tls-psk=keys.psk \
      --tls-verify-peer
wrong '--tls-verify-peer needs' --tls-verify-peer
wrong 'none: No such file' --tls=on --tls-certificates=none
wrong 'none: No such file' --tls-psk=none
HOME=$tmp/home wrong 'pki/znbd: No such file' --tls=require

# with FILE CONTENT REGEX: a folder in which one file is another
with ()
{
  rm -rf bad
  cp -r pki bad
  rm -f "bad/$1"
  [ -z "$2" ] || cp "$2" "bad/$1"
  wrong "bad/$1$3" --tls=on --tls-certificates=bad
}
echo nonsense >nonsense
for file in ca-cert.pem server-cert.pem server-key.pem; do
  with "$file" "" ': No such file'
  with "$file" nonsense ''
done
with ca-crl.pem nonsense ''
with server-key.pem other/ca-key.pem ' is not the key of [^ ]*/server-cert.pem'

# keys CONTENT REGEX [MODE]
keys ()
{
  printf %b "$1" >bad.psk
  chmod "${3:-600}" bad.psk
  wrong "bad.psk: $2" --tls-psk=bad.psk
}
keys '' 'there is no key'
keys '\n\n' 'there is no key'
keys 'alice\n' 'line 1 is not USER:KEY'
keys ':00\n' 'line 1 is not USER:KEY'
keys 'alice:00\nbob:0\n' 'line 2 has a key that is not'
keys 'alice:0g\n' 'line 1 has a key that is not'
keys 'alice:\n' 'line 1 has an empty key'
keys "alice:$(printf '%0130d' 0)" 'line 1 has a key of more than 64'
keys 'alice:00\nalice:01\n' 'line 2 has a user who'
keys 'alice:00\0\n' 'line 1 has a byte of zero'
keys 'alice:00\n' 'its mode 0644 lets others' 644
keys 'alice:00\n' 'its mode 0620 lets others' 620
wrong 'pki: Is a directory' --tls-psk=pki

chmod 640 keys.psk
# shellcheck disable=SC2016
ok "the group may read the keys" \
   znbd-server -U - --tls=require --tls-psk=keys.psk "$disk" \
   --run 'nbdinfo "$uri"'
