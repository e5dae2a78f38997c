# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The guest's side of batch: runs tests one after the other and marks in the
# output where each begins and ends.  A test that cannot even be killed, for
# the kernel hangs in it, ends the guest: batch starts another one for the
# rest.
#
# usage: in-guest.sh TESTS/RUN SECONDS TEST...
# (SECONDS: how long a test may take)

run=$1
limit=$2
shift 2
never=/run/never                # a pipe in which nothing comes
mkfifo "$never"

for test; do
  printf '\n#vm-begin %s\n' "$test"
  # tests/run kills it at its limit, where that has an effect.
  (
    read -r -t $((limit + 40)) _ <>"$never"
    printf '\n#vm-hangs %s\n' "$test"
    dmesg | tail -n 40 | sed 's/^/# /'
    sleep 2
    echo b >/proc/sysrq-trigger
  ) &
  watchdog=$!
  status=0
  "$run" "$test" || status=$?
  kill "$watchdog"
  wait "$watchdog" 2>/dev/null
  printf '\n#vm-end %s %s\n' "$test" "$status"
done
