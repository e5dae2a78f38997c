# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# bench/vm.py: every way to the disk does what is asked of it, and is in the
# table.  Nothing is said of how fast.  ZNBD_LONG=1 takes all ways and cases.

. "$srcdir/vm/functions.sh"

cases='write 4k, depth 32'
ways=znbd,nvmet
titles=("znbd-server, nbd-load" "nvmet-tcp, fio")
rows=1
if [ -n "${ZNBD_LONG:-}" ]; then
  cases=.
  ways=znbd,znbd-fio,attach,nvmet,device
  titles+=("znbd-server, fio with libnbd" "znbd-server, znbd attach, fio"
           "none: the device itself, fio")
  rows=8
fi

run env "abs_top_builddir=$abs_top_builddir" \
    "$PYTHON" "$abs_top_srcdir/bench/vm.py" --rounds 1 --seconds 0.1 \
    --zones 4 --cases "$cases" --ways "$ways"
[ "$status" -eq 0 ] || give_up "it measures" "$out"
for title in "${titles[@]}"; do
  is "$(grep -c "| $title | [1-9]" <<<"$out")" $rows \
     "$title: in the table, $rows times"
done
is "$(sed -n 's/^#results //p' <<<"$out" | "$PYTHON" -c '
import json, sys
for r in json.load(sys.stdin)["results"]:
    if "write 4k" in r["case"]:
        print(r["requests"])' | sort -u)" 1024 "each wrote all of the disk"
is "$(ls -d /sys/kernel/config/nullb/bench /sys/kernel/config/nvmet/ports/1 \
      2>/dev/null)" '' "nothing of it stays behind"
