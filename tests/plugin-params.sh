#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The plugin's parameters: what is wrong is refused with one line that names
# it and exit status 1, and nothing is made; what is right takes effect.
. ./functions.sh
requires nbdkit nbdinfo

cd "$tmp" || exit 1
mkdir folder
echo "not an image" >foreign
touch empty

# refused REGEX PARAMETER...: nbdkit does not start, and says so in a line.
# It would run for as long as it takes to say hello.
refused ()
{
  local regex=$1 before after
  shift
  before=$(ls -lR --time-style=full-iso . && cat foreign)
  run timeout 20 nbdkit -U - "$PLUGIN" "$@" --run 'echo it runs'
  after=$(ls -lR --time-style=full-iso . && cat foreign)
  is "$status" 1 "refused: $*"
  if [[ $out =~ $regex ]] && [ "$(wc -l <<<"$out")" -eq 1 ]; then
    pass "says why in a line: $*"
  else
    fail "says why in a line: $*" "got: $out" "not like: $regex"
  fi
  is "$after" "$before" "makes nothing: $*"
}

# accepted COMMAND WANTED PARAMETER...: it starts, and the command, which
# has $uri, prints what is wanted.
accepted ()
{
  local command=$1 wanted=$2
  shift 2
  run timeout 20 nbdkit -U - "$PLUGIN" "$@" --run "$command"
  is "$out" "$wanted" "accepted: $*"
  is "$status" 0 "exit status: $*"
}
size='nbdinfo --size "$uri"'

# Nothing, or half of it.
refused 'image.*size= and zone-size='
refused 'zone-size=' size=1G
refused 'needs size=' zone-size=64M
refused 'size=' zone-capacity=64M

# Sizes that are none.
for key in size zone-size zone-capacity block-size; do
  for value in 0 -1 -4096 "" " 4096" 4096x 1Z x 0x1000 1.5G \
               9223372036854775808 8E 18446744073709551616 16E 99999999E; do
    params=(size=1G zone-size=64M)
    case $key in
      size) params=(zone-size=64M) ;;
      zone-size) params=(size=1G) ;;
    esac
    refused "$key" "${params[@]}" "$key=$value"
  done
done

# Off the block size, or too large for one another.
refused 'size.*1000.*block size 4096' size=1000 zone-size=64M
refused 'size.*block size 4096' size=1073742336 zone-size=64M
refused 'zone-size.*block size 4096' size=1G zone-size=67109376
refused 'zone-capacity.*block size 4096' \
        size=1G zone-size=64M zone-capacity=1000
refused 'zone-size.*block size 512' size=1G zone-size=1000 block-size=512
refused 'zone-size.*larger' size=64M zone-size=1G
refused 'zone-capacity.*larger.*zone-size' \
        size=1G zone-size=64M zone-capacity=128M
refused 'zone-size.*zones' size=8191P zone-size=4096
for value in 1 256 1024 8192 4097 4294967808 4k4; do
  refused 'block-size' size=1G zone-size=64M block-size=$value
done

# Numbers.
refused 'conventional 17 .*16 zones' size=1G zone-size=64M conventional=17
refused 'max-open 5 .*max-active 4' \
        size=1G zone-size=64M max-open=5 max-active=4
for key in conventional max-open max-active; do
  for value in -1 "" x 1x " 1" 1.5 4k 18446744073709551616; do
    refused "$key" size=1G zone-size=64M "$key=$value"
  done
done
refused 'max-open' size=1G zone-size=64M max-open=4294967296
refused 'max-active' size=1G zone-size=64M max-active=4294967296

# Words and lists.
for value in "" host none Host-Managed hostmanaged "host-managed,"; do
  refused 'model=.*host-managed.*host-aware' \
          size=1G zone-size=64M "model=$value"
done
for value in "" zeros ZERO 1; do
  refused 'gap=.*error.*zero' size=1G zone-size=64M "gap=$value"
done
for value in "" 1 s ms 1h -1s 1.5s "1 s" 99999999999s 2147483648ms \
             18446744073709551616ms; do
  refused 'reorder-timeout' size=1G zone-size=64M "reorder-timeout=$value"
done
for key in read-only-zones offline-zones; do
  for value in "" 16 x 3-1 "1," ",1" 1-2-3 -1 0-16 4294967296; do
    refused "$key" size=1G zone-size=64M "$key=$value"
  done
done

# Keys.
refused 'zonesize' size=1G zone-size=64M zonesize=64M
refused 'Size' size=1G zone-size=64M Size=1G
refused 'size=.*twice' size=1G zone-size=64M size=2G
refused 'file=.*twice' file=a file=b

# Files that are none.
refused 'missing.zbd.*No such file' missing.zbd
refused 'missing.zbd.*No such file' file=missing.zbd
refused 'no/such/folder.*No such file' no/such/folder
refused 'folder' folder
refused 'foreign' foreign
refused 'empty' file=empty
refused 'file=' file=
refused '/dev/null' /dev/null

# An image brings its own geometry.
for param in size=1G zone-size=64M zone-capacity=64M conventional=1 \
             max-open=1 max-active=1 model=host-aware block-size=512 \
             read-only-zones=0 offline-zones=0; do
  refused "${param%%=*}=.*file=missing.zbd" file=missing.zbd "$param"
done
refused 'readonly=.*image' size=1G zone-size=64M readonly=true
for value in "" maybe 2; do
  refused 'readonly=.*true' missing.zbd "readonly=$value"
done

# No permission.
if [ "$(id -u)" -ne 0 ]; then
  touch secret
  chmod 0 secret
  refused 'secret.*Permission denied' secret
elif run setpriv --reuid=nobody --clear-groups true && [ "$status" -eq 0 ]
then
  touch secret
  chmod 0 secret
  chmod 755 "$tmp"
  # The build folder may be nobody else's business.
  mkdir "$tmp/public"
  cp "$PLUGIN" "$tmp/public/plugin.so"
  cp "$(command -v nbdkit)" "$tmp/public/nbdkit"
  chmod -R a+rX "$tmp/public"
  run setpriv --reuid=nobody --clear-groups "$tmp/public/nbdkit" \
      -U - "$tmp/public/plugin.so" secret --run 'echo it runs'
  is "$status" 1 "an image without permission"
  like "$out" 'secret.*Permission denied' "names it and says why"
else
  skip "an image without permission" "root cannot become another user"
fi

# What is right.
accepted "$size" 1073741824 size=1G zone-size=64M
accepted "$size" 1073741824 size=1G zone-size=1G
accepted "$size" 1073741824 size=1048576k zone-size=131072s
accepted "$size" 4096 size=4096 zone-size=4096
accepted "$size" 512 size=512 zone-size=512 block-size=512
accepted "$size" 307200 size=300k zone-size=96k     # a smaller last zone
accepted "$size" 1073741824 size=1G zone-size=64M zone-capacity=64M \
         conventional=16 max-open=0 max-active=0 model=host-managed \
         block-size=4k gap=error reorder-timeout=0
accepted "$size" 1073741824 size=1G zone-size=64M max-open=4 max-active=4 \
         model=host-aware block-size=512 gap=zero reorder-timeout=2s \
         read-only-zones=1,3-4 offline-zones=15
accepted "$size" 1073741824 size=1G zone-size=64M max-open=14 \
         reorder-timeout=250ms

# Memory is for what is written, but addresses end somewhere.
accepted "$size" 1099511627776 size=1T zone-size=256M
refused 'size .*too large' size=9223372036854771712 zone-size=64T

# What nbdkit tells of the plugin.
run nbdkit "$PLUGIN" --help
is "$status" 0 "--help"
for key in file readonly size zone-size zone-capacity conventional max-open \
           max-active model block-size read-only-zones offline-zones \
           reorder-timeout gap; do
  like "$out" "(^|[^-a-z])$key\]?=" "--help has $key="
done
like "$out" '-t 64' "--help has -t 64"

run nbdkit "$PLUGIN" --dump-plugin
is "$status" 0 "--dump-plugin"
for line in name=zoned magic_config_key=file thread_model=parallel \
            zoned_table_export=zones zoned_table_version=1 \
            zoned_stores=image,memory,device zoned_image_version=2 \
            zoned_gap=error,zero \
            zoned_reorder_timeout=1000ms \
            zoned_models=host-managed,host-aware; do
  like "$out" "$line" "--dump-plugin has $line"
done
run nbdkit "$PLUGIN" --dump-plugin missing.zbd
is "$status" 0 "--dump-plugin opens nothing"
