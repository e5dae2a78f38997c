# SPDX-License-Identifier: BSD-3-Clause
# The examples of znbd(1) do what the page says: each is run as it stands
# there, one after the other, in an empty folder.

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

# The code below each heading of EXAMPLES, in a file of its own.
awk -v dir="$tmp" '
  /^=head1/            { examples = $2 == "EXAMPLES"; next }
  examples && /^=head2/ {
    file = sprintf ("%s/example%02d", dir, ++n)
    print substr ($0, 8) > (file ".title")
    next
  }
  examples && /^ /     { print substr ($0, 2) > (file ".sh") }
' "$abs_top_srcdir/client/znbd.pod"

cd "$tmp/work" || exit
count=0
for example in "$tmp"/example*.sh; do
  count=$((count + 1))
  ok "$(cat "${example%.sh}.title")" bash -e -o pipefail "$example"
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
  esac
done
is "$count" 8 "all examples were found"
