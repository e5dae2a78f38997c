# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The kernel's NBD client on znbd-server with TLS, which nbd-client does for
# it: the kernel talks to a process of nbd-client's.

. "$srcdir/vm/functions.sh"

# ---- certificates ----------------------------------------------------------

mkdir "$tmp/pki" "$tmp/other"
# authority FOLDER: makes one
authority ()
{
  printf '%s\n' 'cn = "znbd test"' ca cert_signing_key >"$1/ca.info"
  certtool --generate-privkey --key-type ecdsa --outfile "$1/ca-key.pem" &&
    certtool --generate-self-signed --load-privkey "$1/ca-key.pem" \
             --template "$1/ca.info" --outfile "$1/ca-cert.pem"
}
certificates ()
{
  authority "$tmp/pki" && authority "$tmp/other" || return 1
  printf '%s\n' 'cn = "localhost"' 'dns_name = "localhost"' \
         tls_www_server encryption_key signing_key >"$tmp/pki/server.info"
  certtool --generate-privkey --key-type ecdsa \
           --outfile "$tmp/pki/server-key.pem" &&
    certtool --generate-certificate --load-ca-certificate \
             "$tmp/pki/ca-cert.pem" --load-ca-privkey "$tmp/pki/ca-key.pem" \
             --load-privkey "$tmp/pki/server-key.pem" \
             --template "$tmp/pki/server.info" \
             --outfile "$tmp/pki/server-cert.pem"
}
run certificates
[ "$status" -eq 0 ] || give_up "certtool makes certificates" "$out"

# ---- the server -------------------------------------------------------------

znbd-server -f -i 127.0.0.1 -p 10811 -P "$tmp/pid" --tls=require \
            --tls-certificates "$tmp/pki" \
            memory:48M,zone-size=4M,conventional=12 2>"$tmp/server.log" &
server=$!
cleanup_fn kill "$server"
wait_for [ -s "$tmp/pid" ] ||
  give_up "znbd-server starts" "$(cat "$tmp/server.log")"

load_module nbd
run timeout 30 nbd-client 127.0.0.1 10811 /dev/nbd9 -b 4096
isnt "$status" 0 "without TLS nbd-client is refused"
run timeout 30 nbd-client 127.0.0.1 10811 /dev/nbd9 -b 4096 -x \
    -A "$tmp/other/ca-cert.pem" -H localhost
isnt "$status" 0 "with another authority it refuses the server"

nbd_attach_tcp 10811 -b 4096 -x -A "$tmp/pki/ca-cert.pem" -H localhost
is "$(blockdev --getsize64 "$dev")" 50331648 "the size, through TLS"
ok "mkfs.ext4" mkfs.ext4 -q -F "$dev"
mount_at "it is mounted" "$dev" "$tmp/fs"
ok "files are made" make_files "$tmp/fs" 3
ok "it is unmounted" umount "$tmp/fs"
mount_at "it is mounted again" "$dev" "$tmp/fs"
ok "every file is whole" files_are_whole "$tmp/fs"
unmount "$tmp/fs"
ok "e2fsck finds no fault" e2fsck -f -n "$dev"
nbd_detach
