# SPDX-License-Identifier: BSD-3-Clause
# The examples of znbd(1) and znbd-server(1) do what the pages say: each is
# run as it stands there, one after the other, in an empty folder.

. ./functions.sh
requires jq nbdkit

# "nbdkit ... zoned ..." finds the plugin that was built.
nbdkit=$(command -v nbdkit)
mkdir "$tmp/bin" "$tmp/work"
cat >"$tmp/bin/nbdkit" <<EOT
#!/usr/bin/env bash
args=()
for arg; do
  if [ "\$arg" = zoned ]; then arg='$PLUGIN'; fi
  args+=("\$arg")
done
exec '$nbdkit' "\${args[@]}"
EOT
chmod +x "$tmp/bin/nbdkit"
PATH=$tmp/bin:$PATH

# The server goes into the background: it is to be found again.
server=$(command -v znbd-server)
cat >"$tmp/bin/znbd-server" <<EOT
#!/bin/sh
exec '$server' -P '$tmp/pid' "\$@"
EOT
chmod +x "$tmp/bin/znbd-server"

# Whose the images are that "nobody" serves, and the folders on the way.
chmod 755 "$tmp" "$tmp/work"

# examples PAGE: the code below each heading of EXAMPLES, in a file of its own
examples ()
{
  rm -f "$tmp"/example*
  awk -v dir="$tmp" '
    /^=head1/            { examples = $2 == "EXAMPLES"; next }
    examples && /^=head2/ {
      file = sprintf ("%s/example%02d", dir, ++n)
      print substr ($0, 8) > (file ".title")
      next
    }
    examples && /^ /     { print substr ($0, 2) > (file ".sh") }
  ' "$abs_top_srcdir/$1"
}

# example FILE: runs one
example ()
{
  ok "$(cat "${1%.sh}.title")" bash -e -o pipefail "$1"
}

# ---- znbd(1) ----------------------------------------------------------

cd "$tmp/work" || exit
examples client/znbd.pod
count=0
for file in "$tmp"/example*.sh; do
  count=$((count + 1))
  if grep -q 'znbd attach' "$file"; then
    diag "$(cat "${file%.sh}.title"): vm/attach-btrfs.sh runs it"
    continue
  fi
  example "$file"
  case $count in
    1) is "$(ls)" disk.zbd "it made the disk" ;;
    2) like "$out" 'max open: +14, 0 now' "it shows the geometry"
       is "$(grep -c '^zone  *[0-9]' <<<"$out")" 8 "it shows the first zones"
       direct=$(grep -v '^disk:' <<<"$out") ;;
    3) is "$(grep -v '^disk:' <<<"$out")" "$direct" \
          "the server's answers are the same" ;;
    4) like "$(znbd report --count 8 disk.zbd)" 'zone  7 [^
]* full ' "the zone is full" ;;
    5) is "$(znbd info --json disk.zbd | jq .conditions.empty)" 36 \
          "the zones are empty" ;;
    9) is "$(grep -c ' 131072$' <<<"$out")" 32 "all was appended"
       is "$(znbd report --json disk.zbd | jq '.zones[8] | .wp - .start')" \
          4194304 "into one zone" ;;
    10) is "$(ls)" "copy.zbd
disk.svg
disk.zbd" "it made an image"
        is "$(znbd report --offset 2G copy.zbd | sed 1d)" \
           "$(znbd report --offset 2G disk.zbd | sed 1d)" \
           "it has the same zones" ;;
    11) is "$(znbd report other.zbd)" "$(znbd report copy.zbd)" \
           "the server's disk has the same zones"
        rm copy.zbd other.zbd ;;
  esac
done
is "$count" 13 "all examples of the tool were found"

# ---- znbd-server(1) ---------------------------------------------------

rm -f disk.zbd
examples server/znbd-server.pod
count=0
for file in "$tmp"/example*.sh; do
  count=$((count + 1))
  case $(cat "${file%.sh}.title") in
    *"port 10809")
      # A network of its own, for the port may be taken.
      if [ "$(id -u)" -eq 0 ] && unshare -n true 2>/dev/null; then
        ok "$(cat "${file%.sh}.title")" unshare -n bash -e "$file"
        like "$(tr '\0' ' ' <"/proc/$(cat "$tmp/pid")/cmdline")" \
             'znbd-server .*disk.zbd' "the server is there"
        kill "$(cat "$tmp/pid")"
        soon gone "$(cat "$tmp/pid")"
      else
        znbd create --size 10G --zone-size 256M disk.zbd
        skip "$(cat "${file%.sh}.title")" "must run as root, for a network"
      fi ;;
    *"as somebody else"*)
      if [ "$(id -u)" -eq 0 ]; then
        example "$file"
        like "$out" '^nbd://127.0.0.1:[0-9]+
nobody
10737418240$' "nobody serves it"
      else
        skip "$(cat "${file%.sh}.title")" "must run as root"
      fi ;;
    "Show what is served"*)
      example "$file"
      like "$out" 'x-zbd:geometry:.*zones=40,' "the geometry is there" ;;
    *"in memory"*)
      example "$file"
      is "$(tr -s ' ' <<<"$out")" " 0 134217728 16
 134217728 939524096 545" "the report" ;;
    *"opens and fills"*)
      example "$file"
      like "$out" 'zone 0: empty to implicit-open.*zone 0: .* to full' \
           "its transitions" ;;
    *"filters together"*)
      example "$file"
      like "$(tr -s ' ' <<<"$out")" '^ 0 1073741824 545' "its zones" ;;
    *"from Python"*)
      example "$file"
      like "$out" '^x-zbd:reset \[4096, 1\]$' "its answer" ;;
    *)
      fail "an example that this test does not know" \
           "$(cat "${file%.sh}.title")" ;;
  esac
done
is "$count" 7 "all examples of the server were found"
