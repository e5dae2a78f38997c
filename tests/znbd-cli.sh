# SPDX-License-Identifier: BSD-3-Clause
# The command line tool as its users meet it: what it refuses and with which
# words, what it prints as text and as JSON, on images and over NBD alike,
# and what it does when its output cannot be written.

. ./functions.sh
requires jq

cd "$tmp" || exit

# says STATUS REGEX DESCRIPTION ARG...: znbd exits so, with one line
says ()
{
  local wanted=$1 regex=$2 desc=$3
  shift 3
  run znbd "$@"
  if [ "$status" -ne "$wanted" ] || [[ ! $out =~ $regex ]] ||
     [ "$(wc -l <<<"$out")" -ne 1 ]; then
    fail "$desc" "znbd $*" "status $status: $out" "wanted $wanted: $regex"
  else
    pass "$desc"
  fi
}

# refuses REGEX ARG...: a wrong use, which one line names
refuses ()
{
  local regex=$1
  shift
  says 1 "$regex" "refused: znbd $*" "$@"
}

# ---- help ------------------------------------------------------------

ok "znbd --help" znbd --help
commands=$(sed -n 's/^  \([a-z]*\)  .*/\1/p' <<<"$out")
is "$(echo $commands)" "create check info report map io append copy open close finish reset attach detach list" \
   "it lists the subcommands"
like "$(znbd --version)" '^znbd [0-9]+\.[0-9]+' "znbd --version"
like "$(znbd -V)" '^znbd [0-9]+\.[0-9]+' "znbd -V"

pod=$(cat "$abs_top_srcdir/client/znbd.pod")
for command in $commands; do
  ok "znbd $command --help" znbd $command --help
  is "$(awk 'length > 79' <<<"$out")" "" "its lines fit 79 columns"
  for option in $(grep -o -- '^  --[a-z-]*' <<<"$out"); do
    if [ "$option" != --help ]; then
      like "$pod" "=item B<$option" "the man page has $command's $option"
    fi
  done
done

# ---- wrong use -------------------------------------------------------

refuses '^znbd: no subcommand'
refuses '^znbd: unknown subcommand frob ' frob
refuses "^znbd: unknown subcommand '' " ''
refuses '^znbd: unknown option --frob ' --frob
refuses '^znbd: unknown option -x ' -x report
for command in $commands; do
  refuses "^znbd $command: unknown option --frob " $command --frob
  refuses "^znbd $command: unknown option -x " $command -x
  refuses "^znbd $command: option --help takes no argument" \
          $command --help=me
done
refuses ' IMAGE is missing' check
refuses ' IMAGE or URI is missing' info
refuses ' IMAGE or URI is missing' report
refuses ' IMAGE or URI is missing' reset --all
refuses "extra operand 'b' behind 'a'" check a b
refuses "extra operand 'b' behind 'a'" info a b
refuses "extra operand 'b' behind 'a'" report a --json b
refuses "extra operand 'b' behind 'a'" open --all a b
refuses ' IMAGE or URI is empty' info ''
refuses 'option --json takes no argument' info --json=yes a
refuses 'option --zone needs an argument' open a --zone
refuses 'option --o.*needs an argument' report a --o

create () { refuses "$1" create --size 70M --zone-size 4M "${@:2}" new.zbd; }

refuses '--size is missing' create --zone-size 4M new.zbd
refuses '--zone-size is missing' create --size 4M new.zbd
refuses 'IMAGE is missing' create --size 70M --zone-size 4M
refuses 'extra operand' create --size 70M --zone-size 4M new.zbd 3
for option in size zone-size zone-capacity; do
  create "--$option must not be 0" --$option 0
  create "--$option -1 is negative" --$option -1
  create "--$option -4M is negative" --$option=-4M
  create "--$option 9223372036854775808 is past 2\^63 - 1" \
         --$option 9223372036854775808
  create "--$option 18446744073713745920 is past 2\^63 - 1" \
         --$option 18446744073713745920
  create "--$option 8E is past 2\^63 - 1" --$option 8E
  create "--$option 1\.5M is not a size" --$option 1.5M
  create "--$option 4Mi is not a size" --$option 4Mi
  create "--$option '' is not a size" --$option ''
  create "$option 4097 is not a multiple of" --$option 4097
  create "$option 512 is not a multiple of" --$option 512
  refuses "option --$option needs an argument" create new.zbd --$option
done
create 'zone-capacity 5M is larger than zone-size 4M' --zone-capacity 5M
for option in conventional max-open max-active; do
  create "--$option -1 is negative" --$option -1
  create "--$option 2k is not a whole number" --$option 2k
  create "--$option '' is not a whole number" --$option ''
  create "--$option 99999999999999999999 is past" \
         --$option 99999999999999999999
done
create 'conventional 19 is more than' --conventional 19
create 'max-open 5 is larger than max-active 4' --max-open 5 --max-active 4
create '--model none is neither' --model none
create '--block-size 1k is neither' --block-size 1k
create '--block-size x is not a size' --block-size x
create 'read-only-zones .*18' --read-only-zones 18
create 'offline-zones .*7-' --offline-zones 7-
create 'option --zone is the beginning of several' --zone 4M
create 'option --force takes no argument' --force=yes
is "$(ls)" "" "nothing was made"

refuses 'No such file' create --size 8M --zone-size 4M missing/new.zbd
mkdir folder
refuses 'folder: ' create --size 8M --zone-size 4M folder
refuses 'folder: ' create --force --size 8M --zone-size 4M folder
echo text >foreign
refuses 'foreign: ' create --size 8M --zone-size 4M foreign
is "$(cat foreign)" text "a foreign file is left alone"
for command in info report check "open --all"; do
  refuses 'missing.zbd: No such file' $command missing.zbd
  refuses 'folder: ' $command folder
  refuses 'foreign: ' $command foreign
  refuses '/dev/null: ' $command /dev/null
done

# Control characters do not reach the terminal.
refuses '^znbd info: a\?b\?: No such file' info $'a\nb\e'
refuses '^znbd: unknown subcommand a\?b ' $'a\nb'

# ---- an image, directly and over NBD ---------------------------------

geometry=(--size 70M --zone-size 4M --zone-capacity 3M --conventional 2
          --max-open 3 --max-active 4 --read-only-zones 14 --offline-zones 15)

# What info and report say of a fresh disk; and what management does.
look ()
{
  local disk=$1 how=$2 json

  ok "$how: info" znbd info "$disk"
  like "$out" 'model: +host-managed' "$how: info has the model"
  like "$out" 'size: +73400320 \(70M\)' "$how: info has the size"
  like "$out" 'zone capacity: +3145728 \(3M\)' "$how: info has the capacity"
  like "$out" 'max open: +3, 0 now' "$how: info has the open limit"
  like "$out" 'max active: +4, 0 now' "$how: info has the active limit"
  like "$out" '2 not-wp, 14 empty, 1 read-only, 1 offline' \
       "$how: info counts conditions"

  json=$(znbd info --json "$disk")
  is "$(jq -r '[.model, .size, .zone_count, .zone_size, .zone_capacity,
                .conventional, .max_open, .max_active, .block_size,
                .open, .active, .read_only,
                .conditions.empty, .conditions.offline]|join(" ")' \
       <<<"$json")" \
     "host-managed 73400320 18 4194304 3145728 2 3 4 4096 0 0 false 14 1" \
     "$how: info --json"
  is "$(jq -r .disk <<<"$json")" "$disk" "$how: it has the operand"
  like "$(jq -r .uuid <<<"$json")" \
       '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' "$how: it has the uuid"

  ok "$how: report" znbd report "$disk"
  is "$(wc -l <<<"$out")" 19 "$how: a line for each zone, and one before"
  is "$(grep -c '^zone ' <<<"$out")" 18 "$how: zones begin with zone"
  is "$(sed -n '2p' <<<"$out" | tr -s ' ')" \
     "zone 0 conventional not-wp start 0 len 4194304 cap 4194304 wp -" \
     "$how: a conventional zone"
  is "$(sed -n '5p' <<<"$out" | tr -s ' ')" \
     "zone 3 seq-write-required empty start 12582912 len 4194304 cap\
 3145728 wp 12582912" "$how: an empty zone"
  like "$(sed -n '17p' <<<"$out")" 'offline .* -$' "$how: an offline zone"
  like "$(sed -n '19p' <<<"$out" | tr -s ' ')" \
       'len 2097152 cap 2097152' "$how: the smaller last zone"
  is "$(awk '{ print length }' <<<"$(sed 1d <<<"$out")" | sort -u | wc -l)" \
     1 "$how: columns stand below each other"

  json=$(znbd report --json "$disk")
  is "$(jq -c '.zones[3]' <<<"$json")" \
     "$(tr -d '\n' <<'EOT'
{"index":3,"start":12582912,"length":4194304,"capacity":3145728,
"wp":12582912,"type":"seq-write-required","cond":"empty",
"reset":false,"non_seq":false}
EOT
)" \
     "$how: report --json"
  is "$(jq -c '[.zones[].index] == [range(18)]' <<<"$json")" true \
     "$how: all zones, in order"
  is "$(jq -c '[.zones[].cond] | group_by(.) | map([.[0], length])' \
       <<<"$json")" \
     '[["empty",14],["not-wp",2],["offline",1],["read-only",1]]' \
     "$how: their conditions"
  is "$(jq -c '.geometry.zone_size' <<<"$json")" 4194304 \
     "$how: the geometry is there"

  # parts
  zones () { znbd report --json "$@" "$disk" | jq -c '[.zones[].index]'; }
  is "$(zones --offset 8M --count 3)" '[2,3,4]' "$how: --offset, --count"
  is "$(zones --offset 8388607 --count 1)" '[1]' "$how: offset in a zone"
  is "$(zones --offset 69M)" '[17]' "$how: up to the disk's end"
  is "$(zones --offset 73400319 --count 99999999999)" '[17]' \
     "$how: a count past the end"
  is "$(znbd report --count 1 "$disk" | wc -l)" 2 "$how: text of one zone"
  refuses '--offset 73400320 is not below' report --offset 70M "$disk"
  refuses '--offset -1 is negative' report --offset -1 "$disk"
  refuses '--count must not be 0' report --count 0 "$disk"
  refuses '--count -1 is negative' report --count -1 "$disk"
  refuses '--count x is not a whole number' report --count x "$disk"
}

# conds ZONE...: their conditions
conds ()
{
  local all
  all=$(znbd report --json "$disk" | jq -r '.zones[].cond' | tr '\n' ' ')
  for i; do
    cut -d' ' -f$((i + 1)) <<<"$all"
  done | paste -sd ' '
}

manage_wrongly ()
{
  local how=$1

  refuses 'no zones: give --zone' open "$disk"
  refuses '--zone and --all exclude each other' open --zone 3 --all "$disk"
  refuses '--zone and --offset exclude' open --zone 3 --offset 0 "$disk"
  refuses '--all and --length exclude' open --all --length 4M "$disk"
  refuses '--length is missing' open --offset 8M "$disk"
  refuses '--offset is missing' open --length 8M "$disk"
  refuses '--length must not be 0' open --offset 8M --length 0 "$disk"
  refuses '--offset 9437184 is no zone' open --offset 9M --length 4M "$disk"
  refuses '--length 1048576 ends inside' open --offset 8M --length 1M "$disk"
  refuses '--offset 73400320 is not' open --offset 70M --length 4M "$disk"
  refuses '--length 67108864 reaches' open --offset 8M --length 64M "$disk"
  refuses '--length 9223372036854775807 reaches' \
          open --offset 8M --length 9223372036854775807 "$disk"
  refuses '--zone 18 names a zone .*0 to 17' open --zone 18 "$disk"
  refuses '--zone 3,18 names a zone' open --zone 3,18 "$disk"
  refuses '--zone 4-3 has a range' open --zone 4-3 "$disk"
  refuses "--zone '' is not a list" open --zone '' "$disk"
  refuses '--zone x is not a list' open --zone x "$disk"
  refuses '--zone 3, is not a list' open --zone 3, "$disk"
  refuses '--zone is given twice: 3 and 4; a list is one, as in 0,4-7' \
          reset --zone 3 --zone 4 "$disk"
  refuses '--zone is given twice: data goes to one zone' \
          append --zone 3 --zone 4 "$disk"
  is "$(conds $(seq 2 13))" "$(yes empty | head -12 | paste -sd ' ')" \
     "$how: nothing was opened"

  for command in open close finish reset; do
    refuses 'zone 1 is conventional' $command --zone 1 "$disk"
    refuses 'zone 14 is read-only' $command --zone 14 "$disk"
    refuses 'zone 15 is offline' $command --zone 15 "$disk"
  done
  refuses 'zone 3 .*empty|not possible for zone 3' close --zone 3 "$disk"
}

znbd create "${geometry[@]}" disk.zbd
ok "check of a fresh image" znbd check disk.zbd
refuses 'disk.zbd: exists' create "${geometry[@]}" disk.zbd
ok "create --force" znbd create --force "${geometry[@]}" disk.zbd

disk=disk.zbd
look disk.zbd image
manage_wrongly image
ok "image: finish of a list" znbd finish --zone 2-3,5 disk.zbd
is "$(conds 2 3 4 5 6)" "full full empty full empty" "image: they are full"
ok "image: reset by bytes" znbd reset --offset 12M --length 12M disk.zbd
is "$(conds 2 3 4 5 6)" "full empty empty empty empty" \
   "image: they are empty"
refuses 'zone 2' open --zone 2 disk.zbd
run znbd finish --zone 12-16 disk.zbd
is "$status" 1 "image: a range with a read-only zone fails"
like "$out" 'zone 14 is read-only.*
znbd finish: the 2 zones before it are done$' "image: it says how far it came"
is "$(conds 12 13 14 15 16)" "full full read-only offline empty" \
   "image: earlier zones are done, later ones are not"
ok "image: open" znbd open --zone 4-6 disk.zbd
is "$(conds 4 5 6)" "empty empty empty" "image: an open ends with znbd"
run znbd open --zone 7,4-6 disk.zbd
is "$status" 1 "image: a fourth open is refused"
like "$out" 'zone 6: the limit of 3 open zones' "image: with the limit"
ok "image: reset --all" znbd reset --all disk.zbd
is "$(znbd info --json disk.zbd | jq .conditions.empty)" 14 \
   "image: all are empty"
ok "image: the last zone" znbd finish --offset 68M --length 2M disk.zbd
is "$(conds 16 17)" "empty full" "image: it is full"
ok "image: finish all, close all, open all" \
   sh -ec 'for i in finish close open; do znbd $i --all disk.zbd; done'
ok "image: check after it all" znbd check disk.zbd
znbd create --force "${geometry[@]}" disk.zbd

# Served: the image is the server's.
start_nbdkit_zoned file=disk.zbd reorder-timeout=0
for command in info report "reset --all" \
               "create --force --size 8M --zone-size 4M"; do
  refuses 'disk.zbd: .*in use' $command disk.zbd
done
like "$(znbd info disk.zbd 2>&1)" 'URI' "a hint is given"

disk=$uri
look "$uri" NBD
manage_wrongly NBD
ok "NBD: open of a list" znbd open --zone 2,4-5 "$uri"
is "$(conds 2 3 4 5)" "explicit-open empty explicit-open explicit-open" \
   "NBD: they are open, and stay so"
refuses 'open limit is reached: 3 of 3 .*zone 7 ' open --zone 7 "$uri"
ok "NBD: close" znbd close --zone 5 "$uri"
nbdsh -u "$uri" -c '
for i in (5, 6, 7, 8):
    try:
        h.pwrite(bytes(8192), i << 22)
    except nbd.Error:
        pass'
is "$(conds 2 4 5 6)" \
   "explicit-open explicit-open closed implicit-open" "NBD: writes open zones"
refuses 'active limit is reached: 4 of 4 .*zone 9 ' open --zone 9 "$uri"
like "$(znbd info "$uri")" 'max active: +4, 4 now' "NBD: info counts them"
is "$(znbd report --json "$uri" | jq '.zones[6].wp')" \
   $(((6 << 22) + 8192)) "NBD: the report has the pointer"
run znbd finish --zone 4-5,1,6 "$uri"
is "$status" 1 "NBD: a list with a conventional zone fails"
like "$out" 'zone 1 is conventional.*
znbd finish: the 2 zones before it are done$' "NBD: it says how far it came"
is "$(conds 4 5 6)" "full full implicit-open" "NBD: which is so"
ok "NBD: close --all" znbd close --all "$uri"
is "$(conds 2 6)" "empty closed" "NBD: they are closed"
ok "NBD: open --all" znbd open --all "$uri"
is "$(conds 2 6)" "empty explicit-open" "NBD: they are open"
ok "NBD: finish --all" znbd finish --all "$uri"
is "$(conds 2 6)" "empty full" "NBD: they are full"
ok "NBD: reset by bytes" znbd reset --offset 16M --length 4M "$uri"
is "$(conds 4 5)" "empty full" "NBD: by bytes"
ok "the zone table's own URI" znbd report "$zones_uri"
refuses 'no zone table export "x/zones"' \
        info "nbd+unix:///x?socket=$sock"

# It outlives the server.
kill_nbdkit
disk=disk.zbd
is "$(conds 4 5 6)" "empty full full" "what was done is in the image"
ok "check finds it right" znbd check disk.zbd

# Read-only servers.
start_nbdkit_zoned -r file=disk.zbd
refuses 'export is read-only' reset --zone 5 "$uri"
refuses 'export is read-only' reset --all "$uri"
is "$(znbd info --json "$uri" | jq .read_only)" true "info says read-only"
stop_nbdkit

# TLS, as libnbd's URIs have it, with a file that the URI names.
echo alice:0123456789abcdef0123456789abcdef >psk
chmod 600 psk
if [ -n "${ZNBD_SANITIZER:-}" ]; then
  skip "TLS: info" "with the sanitizer nbdkit hangs in p11-kit at its end"
elif try_nbdkit_zoned -r --tls=require --tls-psk="$tmp/psk" \
                    file="$tmp/disk.zbd"; then
  tls="nbds+unix://alice@/?socket=$sock&tls-psk-file=$tmp/psk"
  is "$(znbd info --json "$tls" | jq .zone_count)" 18 "TLS: info"
  refuses 'does the server want TLS' info "$uri"
  stop_nbdkit
else
  skip "TLS: info" "this nbdkit has no TLS"
fi

refuses 'No such file' info "nbd+unix:///?socket=$tmp/missing"
refuses '^znbd info: nbd:' info nbd:nonsense
refuses '^znbd report: nbds\+unix:' report "nbds+unix:///?socket=$tmp/missing"

# ---- images that are not right --------------------------------------

cp disk.zbd bad.zbd
truncate -s 4096 bad.zbd
refuses 'bad.zbd: ' check bad.zbd
refuses 'bad.zbd: ' info bad.zbd
cp disk.zbd bad.zbd
dd if=/dev/zero of=bad.zbd bs=64 seek=1 count=1 conv=notrunc status=none
sum=$(cksum <bad.zbd)
run znbd check bad.zbd
is "$status" 1 "check of a damaged image exits with 1"
like "$out" 'bad.zbd: ' "and says what is damaged"
is "$(cksum <bad.zbd)" "$sum" "and changes nothing"
run znbd check --repair bad.zbd
is "$status" 0 "check --repair"
like "$out" 'bad.zbd: repaired' "says so"
ok "it is in order then" znbd check bad.zbd
is "$(znbd report bad.zbd)" "$(znbd report disk.zbd)" "and as it was"
dd if=/dev/zero of=bad.zbd bs=64 seek=1 count=1 conv=notrunc status=none
dd if=/dev/zero of=bad.zbd bs=64 seek=65 count=1 conv=notrunc status=none
sum=$(cksum <bad.zbd)
run znbd check --repair bad.zbd
is "$status" 1 "check --repair of what cannot be known exits with 1"
is "$(cksum <bad.zbd)" "$sum" "and changes nothing"

# ---- JSON whatever the name is ---------------------------------------

for name in 'quote"back\slash' $'line\nfeed\ttab\e' $'bad\xffutf\xc3' \
            $'\xed\xa0\x80\xc0\x80\xf5' 'größe €𝄞'; do
  cp disk.zbd "$name"
  if shown=$(znbd info --json "./$name" | jq -r .disk); then
    pass "JSON of $(printf %q "$name") is valid"
  else
    fail "JSON of $(printf %q "$name") is valid"
  fi
  if iconv -f UTF-8 -t UTF-8 <<<"$name" >/dev/null 2>&1; then
    is "$shown" "./$name" "and names it"
  fi
  rm -- "$name"
done

# ---- servers of disks without zones ----------------------------------

# Theirs, whatever export is asked for, are not ours.
for size in 10M 1k; do
  out=$(nbdkit -U - memory $size --run 'znbd info "$uri"' 2>&1) || :
  like "$out" 'no zone table.* \(is it a zoned disk of znbd\?\)' \
       "a disk of $size without zones"
done

# ---- output that cannot be written -----------------------------------

if [ -e /dev/full ]; then
  for command in --help --version "create --help" "info disk.zbd" \
                 "info --json disk.zbd" "report disk.zbd" \
                 "report --json disk.zbd"; do
    status=0
    out=$(znbd $command 2>&1 >/dev/full) || status=$?
    is "$status" 1 "a full disk below: znbd $command exits with 1"
    like "$out" 'standard output: No space' "and says so"
  done
else
  skip "a full disk below" "no /dev/full"
fi

cp disk.zbd before.zbd
status=0
out=$(znbd report disk.zbd 2>&1 >&-) || status=$?
is "$status" 1 "standard output closed: exits with 1"
like "$out" 'standard output' "and says so"
ok "all closed: the image is not written over" \
   sh -c 'znbd reset --zone 99 disk.zbd <&- >&- 2>&-; znbd check disk.zbd'

# ---- a million zones -------------------------------------------------

znbd create --size 4000000M --zone-size 4M --conventional 100 large.zbd
start_nbdkit_zoned file=large.zbd
for disk in "$uri" large.zbd; do
  how=NBD
  if [ "$disk" = large.zbd ]; then
    stop_nbdkit
    how=image
  fi
  for json in "" --json; do
    # Processor time: what else the machine does is nobody's fault.
    TIMEFORMAT='%U %S'
    { time znbd report $json "$disk" >report 2>&1; } 2>used
    ms=$(awk '{ print int (1000 * ($1 + $2)) }' used)
    if [ -n "${ZNBD_SANITIZER:-}" ]; then
      skip "$how: report $json of a million zones" "slow by the sanitizer"
    elif [ "$ms" -lt 2000 ]; then
      pass "$how: report $json of a million zones uses less than 2 s"
    else
      fail "$how: report $json of a million zones uses less than 2 s" \
           "$ms ms"
    fi
  done
  is "$(grep -c '"index"' report)" 1000000 "$how: it has all"
  ok "$how: finish of 999900 zones" znbd finish --zone 100-999999 "$disk"
  ok "$how: reset --all" znbd reset --all "$disk"

  # The reader goes away.
  { status=0; out=$(znbd report "$disk" 2>&1 >&3) || status=$?
    echo "$status $out" >said; } 3>&1 | head -1 >/dev/null
  like "$(cat said)" '^1 .*standard output: Broken pipe' \
       "$how: a pipe that breaks is an error"
done
