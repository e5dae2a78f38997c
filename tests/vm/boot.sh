# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# tests/vm/run with a machine that starts: what gets in, what comes out, and
# how it ends.

. ./functions.sh

vm=$srcdir/vm/run

mkdir "$tmp/a folder"
cat >"$tmp/a folder/script" <<'E2'
[ "$#,$1,$2,$3,$4" = "4,a b,it's \$HOME,*," ] || echo "arguments: $*"
[ "$(id -u)" = 0 ] || echo "user: $(id)"
[ "$PWD" = "$5" ] || [ -e "witness" ] || echo "folder: $PWD"
cat                             # standard input is empty
head -c 300000 numbers
echo written >new-file && grep -q written new-file
grep -q '^kept$' witness && echo changed >witness
printf 'err\n' >&2
printf '\377\000end'
exit 7
E2
head -c 300000 /dev/urandom >"$tmp/a folder/numbers"
echo kept >"$tmp/a folder/witness"
{ cat "$tmp/a folder/numbers"; printf 'err\n\377\000end'; } >"$tmp/wanted"
status=0
(cd "$tmp/a folder" &&
 "$vm" -m 1G -t 120 ./script 'a b' "it's \$HOME" '*' '' \
       </dev/zero >"$tmp/got" 2>"$tmp/errors") || status=$?
is "$status" 7 "the script's status"
same "$tmp/got" "$tmp/wanted" \
     "its output byte for byte, from its folder, with its arguments"
is "$(grep -v 'died as it started, once more' "$tmp/errors")" "" \
   "and nothing else"
ok "nothing that it wrote is kept" [ ! -e "$tmp/a folder/new-file" ]
is "$(cat "$tmp/a folder/witness")" kept "nor what it changed"

cd "$tmp" || exit 1
run "$vm" -t 120 /bin/sh -c \
    'echo begun; sleep 2; echo b >/proc/sysrq-trigger; sleep 9'
is "$status" 125 "a guest that dies"
like "$out" '^begun.*ended without a status' "is told of"

before=$SECONDS
run "$vm" -t 2 sleep 60
is "$status" 124 "a guest that is too slow"
like "$out" 'time limit of 2 s' "is told of"
ok "and killed" [ $((SECONDS - before)) -lt 15 ]

# A reader that has seen enough.
before=$SECONDS
"$vm" -t 120 yes 2>"$tmp/errors" | head -c 1000 >"$tmp/got"
is "$(wc -c <"$tmp/got")" 1000 "output may be cut off"
ok "which ends the guest" [ $((SECONDS - before)) -lt 100 ]
is "$(grep -lsF "$tmp" /tmp/znbd-vm.*/start)" "" "nothing is left behind"
