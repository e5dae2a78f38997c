# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# tests/vm/run before the machine starts: what it says where something is
# missing, and that nothing half done gets into its cache.  Commands that
# download and start are stand-ins here; vm/boot.sh is about the real ones.

. ./functions.sh
requires flock modprobe depmod cpio gcc xz dpkg-deb pgrep
if [ ! -r /etc/os-release ] || ! grep -q '^VERSION_CODENAME=' /etc/os-release
then
  skip_all "this is not Debian"
fi

vm=$srcdir/vm/run
cache="$tmp/a cache, of mine"
export ZNBD_VM_CACHE=$cache ZNBD_VM_ACCEL=tcg
unset ZNBD_VM_KERNEL ZNBD_VM_QEMU ZNBD_VM_APPEND

# stub NAME TEXT: a command that comes first on PATH
mkdir "$tmp/bin"
stub ()
{
  printf '#!/bin/bash\n%s\n' "$2" >"$tmp/bin/$1"
  chmod +x "$tmp/bin/$1"
}
path=$PATH
export PATH="$tmp/bin:$PATH"

# A qemu that leaves its arguments, and ends.
export QEMU_ARGS=$tmp/qemu-args
stub qemu-system-x86_64 'printf "%s\n" "$@" >"$QEMU_ARGS"
                         echo "no such thing" >&2; exit 3'

# An apt that knows a mirror and downloads $DEB; $FAIL is a command of it.
export APT_CALLS=$tmp/apt-calls DEB=$tmp/kernel.deb FAIL=none
# shellcheck disable=SC2016
stub apt-get 'for i; do
    case $i in
      indextargets | update | download) command=$i; break ;;
    esac
  done
  echo "$command" >>"$APT_CALLS"
  [ "$command" != "$FAIL" ] || exit 100
  case $command in
    indextargets) [ "$FAIL" = mirror ] || echo http://mirror.example/debian/ ;;
    download) sleep "${DELAY:-0}"; cp "$DEB" ./kernel.deb ;;
  esac'
stub apt-cache 'echo "  Depends: linux-image-9.9.9-test"'

# A package that looks like a kernel's.
make_deb ()
{
  mkdir -p "$tmp/deb/DEBIAN"
  printf '%s\n' "Package: linux-image-9.9.9-test" "Version: 1" \
         "Architecture: all" "Maintainer: nobody <nobody@example.org>" \
         "Description: test" >"$tmp/deb/DEBIAN/control"
  dpkg-deb -Znone -b "$tmp/deb" "$1" >/dev/null
}
make_deb "$tmp/empty.deb"
mkdir -p "$tmp/deb/boot" "$tmp/deb/lib/modules/9.9.9-test/kernel"
echo kernel >"$tmp/deb/boot/vmlinuz-9.9.9-test"
for i in 9pnet_virtio 9p overlay; do
  echo 'int nothing;' |
    gcc -x c -c -o "$tmp/deb/lib/modules/9.9.9-test/kernel/$i.ko" -
done
make_deb "$tmp/good.deb"
head -c 2000 "$tmp/good.deb" >"$tmp/broken.deb"
cp "$tmp/good.deb" "$DEB"

# nothing_kept DESCRIPTION: the cache has no kernel and no rest of one
nothing_kept ()
{
  is "$(find "$cache" -mindepth 1 ! -name lock)" "" "$1"
}

# ---- its own arguments -------------------------------------------------

run "$vm" -h
is "$status" 0 "-h"
like "$out" "usage: tests/vm/run" "explains it"
run "$vm"
is "$status" 126 "nothing to run: 126"
run "$vm" -z true
is "$status" 126 "an unknown option: 126"
for i in 0 abc -5 1.5; do
  run "$vm" -t "$i" true
  is "$status" 126 "a time limit of $i: 126"
  like "$out" "-t wants seconds" "and why"
done

# ---- what is missing -----------------------------------------------------

mkdir "$tmp/few"
for i in bash env cat dirname realpath nproc; do
  ln -s "$(command -v "$i")" "$tmp/few/$i"
done
run env PATH="$tmp/few" "$vm" -p
is "$status" 126 "without its tools: 126"
like "$out" "missing, please install: .*qemu-system-x86" "all are named"
run env ZNBD_VM_QEMU=/nowhere/qemu "$vm" -p
like "$out" "install: /nowhere/qemu" "a qemu that is not there is named"
run env -u ZNBD_VM_CACHE -u XDG_CACHE_HOME -u HOME "$vm" -p
like "$out" "there is no HOME: set ZNBD_VM_CACHE" "without a home"
: >"$tmp/file"
run env ZNBD_VM_CACHE="$tmp/file/cache" "$vm" -p
is "$status" 126 "a cache that cannot be made: 126"
like "$out" "cannot write to $tmp/file/cache: set ZNBD_VM_CACHE" "and why"

# ---- what goes wrong on the way --------------------------------------------

FAIL=update
run "$vm" -p
is "$status" 126 "no network: 126"
like "$out" "is there a network" "it says so"
nothing_kept "and keeps nothing"
FAIL=mirror
run "$vm" -p
is "$status" 126 "no mirror: 126"
like "$out" "apt knows no mirror" "it says so"
FAIL=download
run "$vm" -p
is "$status" 126 "a download that fails: 126"
like "$out" "cannot download the package linux-image-9.9.9-test" "it says so"
nothing_kept "and keeps nothing"
FAIL=none
cp "$tmp/broken.deb" "$DEB"
run "$vm" -p
is "$status" 126 "a broken package: 126"
like "$out" "does not unpack" "it says so"
nothing_kept "and keeps nothing"
cp "$tmp/empty.deb" "$DEB"
run "$vm" -p
is "$status" 126 "a package without a kernel: 126"
like "$out" "holds no kernel" "it says so"
nothing_kept "and keeps nothing"
cp "$tmp/good.deb" "$DEB"
stub df 'echo Avail; echo 17'
run "$vm" -p
is "$status" 126 "a full disk: 126"
like "$out" "17 MiB of free space, 400 are needed" "it says so"
rm "$tmp/bin/df"

# Killed in the middle: what it left is not taken for good.
: >"$APT_CALLS"
DELAY=30 "$vm" -p >/dev/null 2>&1 &
pid=$!
for ((i = 0; i < 300; i++)); do
  [ "$(tail -n 1 "$APT_CALLS")" != download ] || break
  sleep 0.1
done
: >"$APT_CALLS"
{
  # Those that it started hold its lock.
  children=$(pgrep -P "$pid")
  kill -KILL "$pid"
  for i in $children; do
    pkill -KILL -P "$i"
    kill -KILL "$i"
  done
  wait "$pid"
} 2>/dev/null
isnt "$(find "$cache" -name 'part.*')" "" "killed, it leaves something"

# ---- two at once -----------------------------------------------------------

: >"$APT_CALLS"
DELAY=2 "$vm" -p >"$tmp/one" 2>"$tmp/one.err" &
one=$!
DELAY=2 "$vm" -p >"$tmp/two" 2>"$tmp/two.err" &
two=$!
wait "$one"
is "$?" 0 "one that gets a kernel"
wait "$two"
is "$?" 0 "and one beside it"
is "$(cat "$tmp/one" "$tmp/two" | xargs)" "9.9.9-test 9.9.9-test" \
   "both have it" || diag "$(cat "$tmp"/*.err)"
is "$(grep -c download "$APT_CALLS")" 1 "it was downloaded once"
like "$(cat "$tmp"/*.err)" "waiting for another run" "the other one waited"
is "$(find "$cache" -maxdepth 1 -name 'part.*')" "" \
   "what the killed one left is gone"
: >"$APT_CALLS"
run "$vm" -p
is "$status,$out" "0,9.9.9-test" "later it is there"
is "$(cat "$APT_CALLS")" "" "and nothing is asked of apt"

# ---- starting ----------------------------------------------------------------

run "$vm" -m 3G -c 1 -q '-device "a b",c=d -name x' -q -S true
is "$status" 126 "a qemu that does not start: 126"
like "$out" "no such thing.*qemu ended with status 3" "what it said"
args=$(cat "$QEMU_ARGS")
like "$args" $'-device\na b,c=d\n-name\nx\n-S' "arguments of -q are the shell's"
like "$args" $'-m\n3G\n-smp\n1\n' "memory and processors"
like "$args" $'-kernel\n'"$cache/k/boot/vmlinuz-9.9.9-test" "the kernel"
is "$(grep -c icount "$QEMU_ARGS")" 0 "its clocks are ours"
run env ZNBD_VM_ACCEL=kvm "$vm" -i -c 2 true
args=$(cat "$QEMU_ARGS")
like "$args" $'-accel\ntcg,thread=single,' "-i: one processor, emulated"
like "$args" $'-icount\nshift=1,sleep=off\n' "by whose instructions time goes"
like "$args" $'-smp\n1\n' "and not another number"

run env ZNBD_VM_ACCEL= PATH="$tmp/bin:$path" "$vm" -p
is "$status" 0 "with a qemu that starts nothing KVM is not believed"
if [ -w /dev/kvm ]; then
  like "$out" "KVM does not work here" "as it says"
fi

rm "$cache/k/boot/vmlinuz-9.9.9-test"
run "$vm" true
is "$status" 126 "a kernel that is gone: 126"
like "$out" "is damaged: remove that folder" "and what to do"
