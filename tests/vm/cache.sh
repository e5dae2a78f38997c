# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# What tests/vm/run keeps from one run to the next, in $cache: a kernel
# with its modules (k/), with -Q a newer QEMU (q/), an initramfs (initrd-*)
# and whether KVM works here (kvm-*).  Sourced by it, with die, say, $cache,
# $qemu, $newer_qemu and $vm (this folder).  Everything is made under a lock, beside its place, and moved
# there when it is whole: a run that is killed leaves nothing that a later
# one takes for good.
#
# Kernel and QEMU are Debian's own newer ones, from the mirror that this machine's
# apt uses; apt checks its signature and sums.

space_needed=400                # MiB: the package, unpacked, and apt's lists

# fill_cache: sets $kver, $kernel, $modules, $initrd and $accel
fill_cache ()
{
  mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ] ||
    die "cannot write to $cache: set ZNBD_VM_CACHE to a folder that can be" \
        "written"
  exec 9>"$cache/lock"
  if ! flock -n 9; then
    say "waiting for another run, which fills $cache"
    flock 9
  fi
  rm -rf "$cache"/part.*
  trap 'rm -rf "$cache"/part.*' EXIT

  if [ ! -d "$cache/k" ]; then
    get_kernel
  fi
  if [ -n "$newer_qemu" ] && [ ! -d "$cache/q" ]; then
    get_qemu
  fi
  kver=$(ls "$cache/k/lib/modules")
  kernel=$cache/k/boot/vmlinuz-$kver
  modules=$cache/k/lib/modules/$kver
  [ -r "$kernel" ] && [ -r "$modules/modules.dep" ] ||
    die "the kernel in $cache/k is damaged: remove that folder"

  local stamp
  stamp=$(cat "$vm/init.c" "$vm/cache.sh" | sha256sum | cut -c 1-12)
  initrd=$cache/initrd-$kver-$stamp.gz
  if [ ! -e "$initrd" ]; then
    find "$cache" -maxdepth 1 -name 'initrd-*' -mtime +30 -delete
    make_initrd
  fi
  choose_accel
  trap - EXIT
  exec 9>&-
}

# enough_space MIB
enough_space ()
{
  local free
  free=$(df --output=avail -B 1M "$cache" | tail -n 1 | tr -dc 0-9)
  [ "${free:-0}" -ge "$1" ] ||
    die "$cache has ${free:-0} MiB of free space, $1 are needed: make room" \
        "or set ZNBD_VM_CACHE"
}

# ---- the kernel --------------------------------------------------------

get_kernel ()
{
  local part package

  need depmod:kmod
  enough_space "$space_needed"
  open_suite "a kernel"
  package=${ZNBD_VM_KERNEL:-$(
    apt-cache "${apt_options[@]}" depends linux-image-amd64 2>/dev/null |
    awk '/Depends:.*linux-image-[0-9]/ { print $2; exit }')}
  [ -n "$package" ] || die "$suite has no kernel package"
  unpack "$package" "$part/k"
  [ -e "$part/k/lib/modules" ] || ln -s usr/lib "$part/k/lib"
  local folder=("$part"/k/lib/modules/*)
  [ -r "$part/k/boot/vmlinuz-${folder[0]##*/}" ] && [ ${#folder[@]} -eq 1 ] ||
    die "the package $package holds no kernel with its modules"
  depmod -b "$part/k" "${folder[0]##*/}" ||
    die "depmod fails for the kernel of $package"
  sync -f "$part/k"
  mv "$part/k" "$cache/k"
  rm -rf "$part"
}

# ---- a newer QEMU ------------------------------------------------------

# Of Debian 12's, qemu-io knows no zones.  Unpacked, not installed.
get_qemu ()
{
  local part package

  enough_space "$space_needed"
  open_suite "a newer QEMU"
  for package in qemu-utils qemu-block-extra qemu-system-x86 \
                 qemu-system-common qemu-system-data seabios; do
    unpack "$package" "$part/q"
  done
  [ -x "$part/q/usr/bin/qemu-io" ] ||
    die "the packages of $suite hold no qemu-io"
  mv "$part/q" "$cache/q"
  rm -rf "$part"
}

# ---- packages ----------------------------------------------------------

# open_suite WHAT: makes $part, where packages of $suite can be had with
# $apt_options
open_suite ()
{
  local codename uri signed=''

  need apt-get:apt dpkg-deb:dpkg
  part=$(mktemp -d "$cache/part.XXXXXX")
  mkdir -p "$part"/lists/partial "$part"/archives/partial

  # Debian 12's own are too old.
  # shellcheck disable=SC1091
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  case $codename in
    '') die "/etc/os-release has no VERSION_CODENAME: is this Debian?" ;;
    bookworm) suite=bookworm-backports ;;
    *) suite=$codename ;;
  esac

  # Lists of our own: the machine's may be absent, and are not ours to fetch.
  apt_options=(-qq
    -o Dir::State::lists="$part/lists" -o Dir::Cache::archives="$part/archives"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o APT::Sandbox::User=root
    -o Acquire::Languages=none -o Acquire::Retries=2
    -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30)
  uri=$(mirror "$codename")
  if [ -z "$uri" ]; then
    apt-get "${apt_options[@]}" update >&2 || :
    uri=$(mirror "$codename" "${apt_options[@]}")
  fi
  [ -n "$uri" ] ||
    die "cannot get $1: apt knows no mirror that has $codename" \
        "(is there a network?)"

  say "downloading $1 of $suite, once, into $cache"
  if [ -e /usr/share/keyrings/debian-archive-keyring.gpg ]; then
    signed='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] '
  fi
  echo "deb $signed$uri $suite main" >"$part/sources"
  apt_options+=(-o Dir::Etc::sourcelist="$part/sources"
                -o Dir::Etc::sourceparts=-)
  apt-get "${apt_options[@]}" -o APT::Update::Error-Mode=any update >&2 ||
    die "cannot get $1: apt cannot read the list of $suite (is there a" \
        "network?); $cache may also be copied from another machine"
}

# unpack PACKAGE FOLDER
unpack ()
{
  (cd "$part" && apt-get "${apt_options[@]}" download "$1" >&2) ||
    die "cannot download the package $1: try again"
  dpkg-deb -x "$part"/*.deb "$2" ||
    die "the package $1 does not unpack: try again"
  rm -f "$part"/*.deb
}

# mirror CODENAME [OPTION...]: where apt gets that release
mirror ()
{
  local codename=$1
  shift
  # The format is apt's.
  # shellcheck disable=SC2016
  apt-get "$@" indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
          "Codename: $codename" 2>/dev/null | sort -u | head -n 1
}

# ---- the initramfs -----------------------------------------------------

make_initrd ()
{
  local part module name file n=10

  enough_space 20
  part=$(mktemp -d "$cache/part.XXXXXX")
  mkdir -p "$part"/tree/{m,proc,sys,dev,ov}

  # Each with what it depends on before it.
  for module in 9pnet_virtio 9p overlay; do
    while read -r file; do
      file=${file#insmod }
      name=${file##*/}
      name=${name%%.*}
      compgen -G "$part/tree/m/*-$name.ko" >/dev/null && continue
      case $file in
        *.xz) xz -dc "$file" ;;
        *.zst) need zstd:zstd; zstd -dcq "$file" ;;
        *) cat "$file" ;;
      esac >"$part/tree/m/$n-$name.ko" || die "cannot unpack $file"
      n=$((n + 1))
    done < <(modprobe -d "$cache/k" -S "$kver" --show-depends "$module" |
             grep ^insmod)
  done
  [ "$n" -ge 13 ] || die "the kernel in $cache/k lacks modules: remove it"

  gcc -std=gnu11 -O1 -static -o "$part/tree/init" "$vm/init.c" >&2 ||
    die "$vm/init.c does not compile (is libc6-dev installed?)"
  (cd "$part/tree" && find . | cpio -o -H newc --quiet -R 0:0) |
    gzip -1 >"$part/initrd" || die "cannot make an initramfs in $part"
  mv "$part/initrd" "$initrd"
  rm -rf "$part"
}

# ---- KVM ---------------------------------------------------------------

# There are machines whose /dev/kvm opens and cannot run a kernel: guests
# hang at once.  So it is tried, once after each start of the host.
choose_accel ()
{
  local known result part
  known=$cache/kvm-$(cat /proc/sys/kernel/random/boot_id)
  accel=${ZNBD_VM_ACCEL:-}
  [ -z "$accel" ] || return 0
  accel=tcg
  [ -w /dev/kvm ] || return 0
  if [ ! -e "$known" ]; then
    rm -f "$cache"/kvm-*
    part=$(mktemp -d "$cache/part.XXXXXX")
    timeout -k 1 15 "$qemu" -accel kvm -cpu max -m 512M "${machine[@]}" \
            -kernel "$kernel" -initrd "$initrd" -append "$append" \
            -serial stdio >"$part/console" 2>&1 </dev/null 9>&- || :
    result=no
    if grep -q 'init: started' "$part/console"; then
      result=yes
    else
      say "KVM does not work here, so the processor is emulated"
    fi
    echo "$result" >"$part/kvm"
    mv "$part/kvm" "$known"
    rm -rf "$part"
  fi
  if [ "$(cat "$known")" = yes ]; then
    accel=kvm
  fi
}
