# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Man pages: correct POD, the sections a reader looks for, and a page for
# all that is installed.

. ./functions.sh
requires "$PODCHECKER"

pods=(
  "$abs_top_srcdir/plugin/nbdkit-zoned-plugin.pod"
  "$abs_top_srcdir/server/znbd-server.pod"
  "$abs_top_srcdir/client/znbd.pod"
  "$abs_top_srcdir/client/libznbd.pod"
)

for pod in "${pods[@]}"; do
  name=${pod##*/}
  run "$PODCHECKER" -warnings "$pod"
  is "$status" 0 "$name: podchecker accepts it"
  unlike "$out" "WARNING" "$name: podchecker warns of nothing"
  headings=$(sed -n 's/^=head1 //p' "$pod")
  for heading in NAME SYNOPSIS DESCRIPTION "SEE ALSO"; do
    like "$headings" "$heading" "$name: has $heading"
  done
done
