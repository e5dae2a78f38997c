# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# What shell tests begin with:
#
#     . ./functions.sh
#     requires fio jq
#     start_nbdkit_zoned size=1G zone-size=64M
#     is "$(nbdinfo --size "$uri")" 1073741824 "the size is served"
#
# Results are TAP.  Every check counts itself and goes on after a failure;
# the plan is printed at the end, unless the test called plan.  A test has a
# folder of its own, $tmp, which goes when it ends, and with it every server
# that start_nbdkit_zoned started: one that does not exit cleanly then is a
# failure.  tests/run sets the environment.

set -u

if [ -z "${abs_top_builddir:-}" ]; then
  echo "Bail out! run it with tests/run in the build folder"
  exit 99
fi

tap_count=0             # checks so far
tap_failed=0            # those that failed
tap_planned=            # what plan or skip_all printed, if so
nbdkit_pids=()          # servers that run
nbdkit_count=0          # servers started so far
cleanup_cmds=()

tmp=$(mktemp -d "${TMPDIR:-/tmp}/znbd-test.XXXXXX")

# ---- checks ----------------------------------------------------------

# diag TEXT...: lines for people who look at a failure
diag ()
{
  printf '%s\n' "$@" | sed 's/^/# /'
}

# plan N: how many checks there will be
plan ()
{
  tap_planned=$1
  echo "1..$1"
}

pass ()
{
  tap_count=$((tap_count + 1))
  echo "ok $tap_count - $1"
}

# fail DESCRIPTION [DIAGNOSTIC...]
fail ()
{
  tap_count=$((tap_count + 1))
  tap_failed=$((tap_failed + 1))
  echo "not ok $tap_count - $1"
  shift
  if [ $# -gt 0 ]; then
    diag "$@"
  fi
  return 0
}

# ok DESCRIPTION COMMAND [ARG...]: the command succeeds
ok ()
{
  local desc=$1
  shift
  run "$@"
  if [ "$status" -eq 0 ]; then
    pass "$desc"
  else
    fail "$desc" "status $status of: $*" "$out"
  fi
}

# not_ok DESCRIPTION COMMAND [ARG...]: it fails, but not by a signal
not_ok ()
{
  local desc=$1
  shift
  run "$@"
  if [ "$status" -gt 0 ] && [ "$status" -lt 126 ]; then
    pass "$desc"
  else
    fail "$desc" "status $status of: $*" "$out"
  fi
}

# is GOT WANTED DESCRIPTION
is ()
{
  if [ "$1" = "$2" ]; then
    pass "$3"
  else
    fail "$3" "got:    $1" "wanted: $2"
  fi
}

# isnt GOT UNWANTED DESCRIPTION
isnt ()
{
  if [ "$1" != "$2" ]; then
    pass "$3"
  else
    fail "$3" "got: $1"
  fi
}

# like GOT REGEX DESCRIPTION; the regex is bash's, for the whole text
like ()
{
  if [[ $1 =~ $2 ]]; then
    pass "$3"
  else
    fail "$3" "got:       $1" "not like:  $2"
  fi
}

# unlike GOT REGEX DESCRIPTION
unlike ()
{
  if [[ ! $1 =~ $2 ]]; then
    pass "$3"
  else
    fail "$3" "got:  $1" "like: $2"
  fi
}

# same FILE FILE DESCRIPTION: byte by byte
same ()
{
  local where
  if where=$(cmp -- "$1" "$2" 2>&1); then
    pass "$3"
  else
    fail "$3" "$where"
  fi
}

# skip DESCRIPTION REASON: one check that cannot be made here
skip ()
{
  tap_count=$((tap_count + 1))
  echo "ok $tap_count - $1 # SKIP $2"
}

# skip_all REASON: the whole test, before any check
skip_all ()
{
  tap_planned=0
  echo "1..0 # SKIP $*"
  exit 0
}

# run COMMAND [ARG...]: sets $status, and $out to what it printed on both
# outputs
run ()
{
  status=0
  out=$("$@" 2>&1 </dev/null) || status=$?
}

# soon COMMAND...: within five seconds it succeeds
soon ()
{
  local i
  for ((i = 0; i < 100; i++)); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.05
  done
  return 1
}

# gone PID: it has ended (a zombie has)
gone ()
{
  [ ! -e "/proc/$1" ] || grep -q '^State:	Z' "/proc/$1/status"
}

# ---- what a test needs -----------------------------------------------

# requires COMMAND...: all are there
# requires COMMAND -OPTION [ARG...]: running it succeeds
requires ()
{
  local cmd
  if [ $# -gt 1 ] && [[ $2 = -* ]]; then
    run "$@"
    [ "$status" -eq 0 ] || skip_all "this machine fails at: $*"
    return 0
  fi
  for cmd; do
    command -v -- "$cmd" >/dev/null || skip_all "$cmd is not installed"
  done
}

requires_root ()
{
  [ "$(id -u)" -eq 0 ] || skip_all "must run as root"
}

# long_only: for what takes minutes (make check-long)
long_only ()
{
  [ -n "${ZNBD_LONG:-}" ] || skip_all "takes long: run by make check-long"
}

# cleanup_fn COMMAND [ARG...]: run when the test ends, last one first
cleanup_fn ()
{
  cleanup_cmds+=("$(printf '%q ' "$@")")
}

# ---- servers ---------------------------------------------------------

# start_nbdkit_zoned [OPTION...] PARAMETER...: stock nbdkit with the plugin
# on a Unix socket.  Sets $uri, $sock, $nbdkit_pid and $nbdkit_log (its
# messages).  Options of nbdkit may stand among the parameters.
# ($zones_uri is the zone table's.)
start_nbdkit_zoned ()
{
  try_nbdkit_zoned "$@" && return 0
  fail "nbdkit zoned $* starts" "$(cat "$nbdkit_log")"
  exit 1
}

# try_nbdkit_zoned: the same where starting may fail; returns 1 then, with
# nbdkit's status in $nbdkit_status
try_nbdkit_zoned ()
{
  local options=() params=()

  # nbdkit wants its options before the plugin.
  while [ $# -gt 0 ]; do
    case $1 in
      -e | -g | -i | -m | -p | -t | -u) options+=("$1" "$2"); shift ;;
      -*) options+=("$1") ;;
      *) params+=("$1") ;;
    esac
    shift
  done

  try_server nbdkit -t 64 ${options[@]+"${options[@]}"} \
             "$PLUGIN" ${params[@]+"${params[@]}"}
}

# start_zoned: for tests that look at both servers: nbdkit, or znbd-server
# where the test was read by one that set served_by=znbd-server
start_zoned ()
{
  if [ "${served_by:-nbdkit}" = znbd-server ]; then
    start_znbd_server "$@"
  else
    start_nbdkit_zoned "$@"
  fi
}

# start_znbd_server PARAMETER...: the project's own server, in place of
# nbdkit: the same parameters, the same variables, and stop_nbdkit ends it
start_znbd_server ()
{
  local i disk='' options=()
  for i; do
    case $i in
      -*) options+=("$i") ;;
      *-zones=*) disk+=,${i//,/+} ;;
      reorder-timeout=* | gap=*) options+=("--${i%%=*}" "${i#*=}") ;;
      size=*) disk=memory:${i#*=}$disk ;;
      *=*) disk+=,$i ;;
      *) disk=$i ;;
    esac
  done
  try_server znbd-server ${options[@]+"${options[@]}"} "$disk" && return 0
  fail "znbd-server $* starts" "$(cat "$nbdkit_log")"
  exit 1
}

# try_server COMMAND ARG...: with the options of a socket and so on, which
# nbdkit and znbd-server share; waits until it is ready
try_server ()
{
  local base i command=$1
  shift
  nbdkit_count=$((nbdkit_count + 1))
  base=$tmp/nbdkit$nbdkit_count
  sock=$base.sock
  nbdkit_log=$base.log

  "$command" -f -U "$sock" -P "$base.pid" "$@" \
             >"$nbdkit_log" 2>&1 </dev/null &
  nbdkit_pid=$!
  for ((i = 0; i < 600; i++)); do
    if [ -s "$base.pid" ]; then
      nbdkit_pids+=("$nbdkit_pid")
      uri="nbd+unix:///?socket=$sock"
      zones_uri="nbd+unix:///zones?socket=$sock"
      export uri zones_uri
      return 0
    fi
    if ! kill -0 "$nbdkit_pid" 2>/dev/null; then
      nbdkit_status=0
      wait "$nbdkit_pid" || nbdkit_status=$?
      return 1
    fi
    sleep 0.05
  done
  kill -KILL "$nbdkit_pid"
  nbdkit_status=124
  return 1
}

# stop_nbdkit [PID]: ends a server, the last one started if none is named,
# and waits; a failed check if it does not end cleanly
stop_nbdkit ()
{
  local pid=${1:-$nbdkit_pid} status=0
  kill "$pid" 2>/dev/null || :
  nbdkit_wait "$pid" || status=$?
  if [ "$status" -ne 0 ]; then
    fail "nbdkit ends cleanly" "status $status" "$(cat "$tmp"/nbdkit*.log)"
  fi
}

# kill_nbdkit [PID]: ends a server as a crash does
kill_nbdkit ()
{
  local pid=${1:-$nbdkit_pid}
  kill -KILL "$pid" 2>/dev/null || :
  nbdkit_wait "$pid" 2>/dev/null || :
}

# Waits at most 15 seconds for a server, and forgets it.  (One that a client
# stays connected to may never end: nbdkit 1.32 waits for it.)
nbdkit_wait ()
{
  local pid=$1 i left=()
  for i in ${nbdkit_pids[@]+"${nbdkit_pids[@]}"}; do
    [ "$i" = "$pid" ] || left+=("$i")
  done
  nbdkit_pids=(${left[@]+"${left[@]}"})

  for ((i = 0; i < 300; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
  done
  kill -KILL "$pid" 2>/dev/null && diag "nbdkit $pid hangs (with a client?)"
  wait "$pid"
}

# ---- the end ---------------------------------------------------------

tap_end ()
{
  local status=$? pid i
  trap '' INT TERM HUP
  trap - EXIT
  set +e

  for pid in ${nbdkit_pids[@]+"${nbdkit_pids[@]}"}; do
    stop_nbdkit "$pid"
  done
  for ((i = ${#cleanup_cmds[@]} - 1; i >= 0; i--)); do
    eval "${cleanup_cmds[i]}"
  done
  if [ "$status" -ne 0 ] && [ "$tap_failed" -eq 0 ]; then
    fail "the test comes to its end" "it ended with status $status"
  fi
  if [ -z "$tap_planned" ]; then
    echo "1..$tap_count"
  fi
  if [ "$tap_failed" -ne 0 ]; then
    for i in "$tmp"/nbdkit*.log; do
      [ -s "$i" ] && diag "messages of ${i##*/}:" "$(tail -n 20 "$i")"
    done
  fi
  rm -rf "$tmp"
  # What failed has been said; a failing status would count it again.
  exit 0
}
trap tap_end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
