# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# What tests in the virtual machine begin with:
#
#     . "$srcdir/vm/functions.sh"
#     null_blk size=256 zone_size=16 zone_nr_conv=2   # sets $dev
#     zns_disk 4096                                   # the same
#     start_znbd_server size=64M zone-size=4M
#     nbd_attach -b 4096                              # the same
#
# All of ../functions.sh is there.  Devices go when the test ends, so that
# the next test of the same boot finds a clean machine.  What a test needs
# of the machine is there, or it fails: none is skipped.

. ./functions.sh

if [ -z "${ZNBD_VM_GUEST:-}" ]; then
  echo "Bail out! run it with tests/run, which starts the virtual machine"
  exit 99
fi

# give_up DESCRIPTION [DIAGNOSTIC...]: what follows has no sense without
give_up ()
{
  fail "$@"
  exit 1
}

# load_module NAME [PARAMETER...]
load_module ()
{
  run modprobe "$@"
  [ "$status" -eq 0 ] || give_up "the kernel module $1 loads" "$out"
}

# wait_for COMMAND...: at most 30 seconds until it succeeds
wait_for ()
{
  local i
  for ((i = 0; i < 300; i++)); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  return 1
}

# sysfs DEVICE FILE: of its queue or itself: sysfs /dev/sda queue/zoned
sysfs ()
{
  cat "/sys/block/${1#/dev/}/$2"
}

# ---- zoned devices -----------------------------------------------------

null_blk_count=0

# null_blk PARAMETER=VALUE...: a zoned null_blk in memory.  The parameters
# are the files of its configfs folder, sizes there in MiB: size, zone_size,
# zone_capacity, zone_nr_conv, zone_max_open, zone_max_active, blocksize.
# Sets $dev and $null_blk (the folder).
null_blk ()
{
  local i
  [ -d /sys/module/null_blk ] || load_module null_blk nr_devices=0
  null_blk=/sys/kernel/config/nullb/znbd$null_blk_count
  mkdir "$null_blk" || give_up "null_blk takes another device"
  cleanup_fn rmdir "$null_blk"
  for i in zoned=1 memory_backed=1 "$@" power=1; do
    echo "${i#*=}" 2>"$tmp/null_blk" >"$null_blk/${i%%=*}" ||
      give_up "null_blk takes $i" "$(cat "$tmp/null_blk")" \
              "$(dmesg | tail -n 3)"
  done
  dev=/dev/$(null_blk_name)
  null_blk_count=$((null_blk_count + 1))
  wait_for [ -b "$dev" ] || give_up "null_blk's $dev appears"
}

# Its folder's name, from kernel 6.12 on.
null_blk_name ()
{
  local name=${null_blk##*/}
  if [ ! -d "/sys/block/$name" ]; then
    name=nullb$(<"$null_blk/index")
  fi
  echo "$name"
}

# zns_disk 4096 | 512: an NVMe ZNS namespace with such blocks, all of its
# zones empty.  batch gives each boot one of each:
#   4096: 512 MiB in zones of 16 MiB, 12 MiB of which can be written, 4 open
#         and 6 active
#   512:  256 MiB in zones of 16 MiB, without limits
# What is in them does not outlive the boot.
zns_disk ()
{
  local serial
  load_module nvme
  for serial in /sys/class/nvme/*/serial; do
    [ "$(xargs <"$serial")" = "znbd$1" ] || continue
    dev=/dev/$(basename "${serial%/serial}")n1
    wait_for [ -b "$dev" ] || give_up "the ZNS namespace $dev appears"
    ok "zones of $dev are reset" blkzone reset "$dev"
    return 0
  done
  give_up "there is a ZNS namespace with blocks of $1 bytes" \
          "$(ls -l /sys/class/nvme)"
}

# smr_disk [PARAMETER=VALUE...]: a host-managed SMR disk by scsi_debug, one
# at a time: the one before goes.  Parameters are the module's: dev_size_mb, zone_size_mb,
# zone_cap_mb, zone_nr_conv, zone_max_open, sector_size.
smr_disk ()
{
  load_module sd_mod
  no_smr_disk
  load_module scsi_debug zbc=managed "$@"
  cleanup_fn no_smr_disk
  smr_host=/sys/bus/pseudo/drivers/scsi_debug/adapter0
  wait_for smr_name || give_up "scsi_debug's disk appears"
  dev=/dev/$(smr_name)
  wait_for [ -b "$dev" ] || give_up "scsi_debug's $dev appears"
}

no_smr_disk ()
{
  [ ! -d /sys/module/scsi_debug ] || wait_for rmmod scsi_debug
}

smr_name ()
{
  local found=("$smr_host"/host*/target*/*/block/*)
  [ -d "${found[0]}" ] && basename "${found[0]}"
}

# walk NAME: the random walk of host_walk.py on $dev, a check for each server
walk ()
{
  local server
  run "$PYTHON" "$srcdir/vm/host_walk.py" "$dev" znbd-server nbdkit
  for server in znbd-server nbdkit; do
    if [[ $out =~ "all agree behind $server: "[^$'\n']* ]]; then
      pass "$1, behind $server"
      diag "${BASH_REMATCH[0]}"
    else
      fail "$1, behind $server" "$out"
    fi
  done
}

# ---- the kernel's NBD client --------------------------------------------

nbd_count=0

# nbd_attach [OPTION...]: attaches the server started last ($sock) with
# nbd-client; sets $dev
nbd_attach ()
{
  try_nbd_attach -unix "$sock" "$@" && return 0
  give_up "nbd-client attaches $sock" "$out"
}

# nbd_attach_tcp PORT [OPTION...]: the same for a server on 127.0.0.1
nbd_attach_tcp ()
{
  local port=$1
  shift
  try_nbd_attach 127.0.0.1 "$port" "$@" && return 0
  give_up "nbd-client attaches port $port" "$out"
}

# try_nbd_attach ARG...: nbd-client's arguments but the device; sets $out
# and $dev, and returns 1 where it fails
try_nbd_attach ()
{
  local address=("$1" "$2")
  shift 2
  [ -d /sys/module/nbd ] || load_module nbd nbds_max=16 max_part=8
  dev=/dev/nbd$nbd_count
  run nbd-client "${address[@]}" "$dev" "$@"
  [ "$status" -eq 0 ] || return 1
  nbd_count=$((nbd_count + 1))
  cleanup_fn nbd_detach "$dev"
  wait_for nbd_has_size "$dev"
}

nbd_has_size ()
{
  [ "$(sysfs "$1" size)" -gt 0 ]
}

# nbd_detach [DEVICE]
nbd_detach ()
{
  local dev=${1:-$dev}
  [ -e "/sys/block/${dev#/dev/}/pid" ] || return 0
  nbd-client -d "$dev" >/dev/null 2>&1
  wait_for [ ! -e "/sys/block/${dev#/dev/}/pid" ] ||
    fail "nbd-client detaches $dev"
}

# ---- znbd attach ----------------------------------------------------------

# attach [OPTION...]: the server started last, by $uri; sets $dev
attach ()
{
  run znbd attach "$@" "$uri"
  [ "$status" -eq 0 ] || give_up "znbd attach $*" "$out"
  dev=$out
  cleanup_fn detach "$dev"
}

# detach [DEVICE]
detach ()
{
  local dev=${1:-$dev}
  [ -e "$dev" ] || return 0
  run timeout 60 znbd detach "$dev"
  [ "$status" -eq 0 ] || fail "znbd detach $dev" "$out"
}

# attach_pid [DEVICE]: of the process that serves it
attach_pid ()
{
  znbd list --json | awk -v dev="\"${1:-$dev}\"," '
    /"device"/ { found = $2 == dev }
    /"pid"/ && found { print $2 + 0 }'
}

# zones_are_the_same DESCRIPTION: what the kernel says of $dev's zones and
# the server of $uri's
zones_are_the_same ()
{
  blkzone report "$dev" | kernel_zones >"$tmp/kernel_zones"
  znbd report "$uri" | server_zones >"$tmp/server_zones"
  if [ -s "$tmp/kernel_zones" ] &&
     diff "$tmp/kernel_zones" "$tmp/server_zones" >"$tmp/zones_differ"; then
    pass "$1"
  else
    fail "$1" "$(head -n 10 "$tmp/zones_differ")"
  fi
}

# START CAPACITY CONDITION TYPE POINTER in sectors from the zone's start; the
# last where it tells something
kernel_zones ()
{
  sed -En 's/.*start: (0x\w+), len (0x\w+), cap (0x\w+), wptr (0x\w+) .*zcond: *([0-9]+)\(.*type: ([0-9]).*/\1 \2 \3 \5 \6 \4/p' |
    while read -r start length capacity cond type wp; do
      case $cond in 1 | 2 | 3 | 4) ;; *) wp=-1 ;; esac
      echo $((start)) $((length)) $((capacity)) "$cond" "$type" $((wp))
    done
}

server_zones ()
{
  awk '
    BEGIN {
      n = split("not-wp 0 empty 1 implicit-open 2 explicit-open 3 closed 4 " \
                "read-only 13 full 14 offline 15 conventional 1 " \
                "seq-write-required 2", names, " ")
      for (i = 1; i < n; i += 2)
        code[names[i]] = names[i + 1]
    }
    $1 == "zone" {
      cond = code[$4]
      wp = cond >= 1 && cond <= 4 ? ($12 - $6) / 512 : -1
      print $6 / 512, $8 / 512, $10 / 512, cond, code[$3], wp
    }'
}

# ---- file systems -------------------------------------------------------

# mount_at DESCRIPTION DEVICE FOLDER [OPTION...]: a check; unmounted when
# the test ends
mount_at ()
{
  local desc=$1 device=$2 folder=$3
  shift 3
  mkdir -p "$folder"
  cleanup_fn unmount "$folder"
  ok "$desc" mount "$@" "$device" "$folder"
}

unmount ()
{
  if mountpoint -q "$1"; then
    umount "$1"
  fi
}

# make_files FOLDER MIB: files of many sizes and their sums, FOLDER/sums
make_files ()
{
  local folder=$1 i
  mkdir -p "$folder/a/b/c"
  for ((i = 1; i <= $2 * 2; i++)); do
    head -c $((RANDOM * 30 + 1)) /dev/urandom >"$folder/a/b/$i" || return 1
  done
  for ((i = 0; i < 20; i++)); do
    echo "$i $RANDOM" >"$folder/a/b/c/$i" || return 1
  done
  (cd "$folder" && find a -type f -print0 | sort -z | xargs -0 md5sum >sums)
}

# files_are_whole FOLDER
files_are_whole ()
{
  [ -s "$1/sums" ] && (cd "$1" && md5sum --quiet -c sums)
}
