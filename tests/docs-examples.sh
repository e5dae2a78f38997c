# SPDX-License-Identifier: BSD-3-Clause
# docs/examples/zones.py: a report, a reset and appends with nothing but
# libnbd's Python module; what it shows is what znbd shows.

. ./functions.sh
requires jq python3
python3 -c 'import nbd' 2>/dev/null ||
  skip_all "Python's module nbd is not installed (python3-libnbd)"

zones () { python3 "$abs_top_srcdir/docs/examples/zones.py" "$@"; }

# What znbd knows, in the example's words.
wanted ()
{
  znbd report --json "$1" |
    jq -r '.zones[] |
           [.index,
            if .type == "conventional" then .type else "sequential" end,
            .cond,
            if .cond == "not-wp" or .cond == "offline" then "-"
            elif .cond == "full" or .cond == "read-only"
            then .start + .capacity else .wp end] | join(" ")'
}

start_znbd_server size=70M zone-size=4M zone-capacity=3M conventional=2 \
                  read-only-zones=14 offline-zones=15
znbd finish --zone 9 "$uri"
znbd open --zone 10 "$uri"
run zones "$uri" report
is "$status" 0 "report"
is "$out" "$(wanted "$uri")" "it is what znbd reports"

yes zoned | head -c 100k >"$tmp/input"
zones "$uri" append 5 <"$tmp/input" >"$tmp/out" 2>&1
is "$?" 0 "append"
is "$(sort -n "$tmp/out")" \
   "$(for i in {0..24}; do echo "$i: at $((20971520 + 4096 * i))"; done)" \
   "it says where"
is "$(zones "$uri" report | sed -n 6p)" \
   "5 sequential implicit-open $((20971520 + 102400))" "the pointer moved"
ok "the data is there" \
   python3 -c 'import nbd, sys
h = nbd.NBD (); h.connect_uri (sys.argv[1])
assert h.pread (102400, 20971520) == open (sys.argv[2], "rb").read ()' \
   "$uri" "$tmp/input"
run zones "$uri" append 0
is "$status $out" "1 zone 0 is conventional" "a conventional zone takes none"
run zones "$uri" reset 5
is "$status" 0 "reset"
is "$(zones "$uri" report | sed -n 6p)" "5 sequential empty 20971520" \
   "the zone is empty"
run zones "$uri" reset 15
is "$status" 1 "an offline zone is not reset"
run zones "$uri"
is "$status" 1 "how it is used"
like "$out" 'zones.py URI report' "it says"
stop_nbdkit

# Zones of which no request holds many, or not one.
for zone_size in 3G 8G; do
  start_znbd_server size=40G zone-size=$zone_size conventional=1
  znbd finish --zone 3 "$uri"
  is "$(zones "$uri" report)" "$(wanted "$uri")" "zones of $zone_size"
  stop_nbdkit
done

start_nbdkit_zoned size=64M zone-size=4M
run zones "$uri" report
is "$status" 1 "nbdkit has no contexts"
like "$out" 'offers no x-zbd contexts' "it says so"
