# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The README's transcript: the disk that ./quickstart makes, the first lines
# of its report, and then every command with what it prints.

. ./functions.sh
requires nbdkit nbdsh

readme=$abs_top_srcdir/README.md
create=$(sed -n '/znbd" create/,/image"/p' "$abs_top_srcdir/quickstart" |
         tr -d '\\\n' | sed 's/.*create//; s/"$image"//')
# shellcheck disable=SC2086
znbd create $create "$tmp/quickstart.zbd"
start_nbdkit_zoned "$tmp/quickstart.zbd"

# Blocks of code, by their first line.
awk -v dir="$tmp" '
  /^```/     { inside = !inside; file = ""; next }
  inside && file == "" { file = dir "/block" ++n }
  inside     { print > file }
' "$readme"

is "$(znbd report "$uri" --count 5)" \
   "$(grep -E '^(#|zone)' "$tmp/block1")" "the report that it begins with"

# The second block: "$ COMMAND", and its output up to the next one.
expected= command=
check ()
{
  [ -n "$command" ] || return 0
  is "$(eval "$command" 2>&1)" "${expected%$'\n'}" "$command"
}
while IFS= read -r line; do
  case $line in
    '$ '*)
      check
      command=${line#\$ } expected= ;;
    *)
      expected+=$line$'\n' ;;
  esac
done <"$tmp/block2"
check
