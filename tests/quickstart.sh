# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# ./quickstart in a copy of the checkout, at a path with a space in it: what
# it prints, what it leaves behind, and that every command that it tells its
# reader to try does work.

. ./functions.sh
requires autoreconf automake libtoolize pkg-config nbdinfo tar

# Nothing is installed from here.
mkdir "$tmp/bin"
cat >"$tmp/bin/apt-get" <<'EOF'
#!/bin/sh
echo "apt-get $*" >>"$APT_CALLS"
exit 1
EOF
chmod +x "$tmp/bin/apt-get"
export APT_CALLS=$tmp/apt-calls
export PATH="$tmp/bin:$PATH"

top="$tmp/a checkout"
mkdir "$top"
tar -C "$abs_top_srcdir" -c --exclude=./build --exclude=./.git \
    --exclude='*.zbd' --exclude='*.o' --exclude='*.lo' . |
  tar -C "$top" -x
chmod -R u+w "$top"

# Its work here is not to optimise.
export CFLAGS=-O0

cd "$tmp" || exit 1
run "$top/quickstart" --help
is "$status" 0 "--help is understood"
like "$out" "quickstart check" "and explains check"

run "$top/quickstart" --nonsense
is "$status" 1 "an unknown option is refused"

# A machine without some package.
mkdir "$tmp/bare"
cat >"$tmp/bare/dpkg-query" <<'EOF'
#!/bin/sh
case "$*" in
  *liburing-dev*) exit 1 ;;
  *) echo installed ;;
esac
EOF
chmod +x "$tmp/bare/dpkg-query"
run env PATH="$tmp/bare:$PATH" "$top/quickstart" --run true
is "$status" 1 "what cannot be installed ends it"
like "$out" "cannot install liburing-dev" "with the package's name"
if [ "$(id -u)" -eq 0 ]; then
  like "$(cat "$APT_CALLS")" "apt-get .*install liburing-dev" \
       "after apt-get was asked for it, and for it alone"
fi
rm -f "$APT_CALLS"

# shellcheck disable=SC2016
run "$top/quickstart" --run 'nbdinfo --size "$uri"'
if [[ $out = *"cannot install"* ]] || [[ $out = *"packages are missing"* ]]
then
  skip "it builds and serves" "packages are missing: ${out##*: }"
  exit 0
fi
is "$status" 0 "--run succeeds"
like "$out" "10737418240" "and \$uri is the disk of 10 GiB"
[ "$status" -eq 0 ] || { diag "$out"; exit 0; }
ok "apt-get is not asked where nothing is missing" [ ! -e "$APT_CALLS" ]
ok "the disk is in the checkout" [ -s "$top/quickstart.zbd" ]

run "$top/quickstart" --run 'exit 7'
is "$status" 7 "--run ends with the command's status"

# In the foreground, ended as Ctrl-C does: the whole process group.
cd / || exit 1
set -m
"$top/quickstart" >"$tmp/out" 2>&1 </dev/null &
pid=$!
set +m
cleanup_fn kill -KILL -- "-$pid" 2>/dev/null
for ((i = 0; i < 600; i++)); do
  grep -q "Ctrl-C ends" "$tmp/out" && break
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.1
done
text=$(cat "$tmp/out")
uri=$(sed -n 's/^ *\(nbd+unix:[^ ]*\)$/\1/p' "$tmp/out" | head -n 1)
like "$uri" "^nbd\+unix:///\?socket=" "it prints the URI"
like "$text" "not-wp" "it prints conventional zones"
like "$text" "empty" "it prints empty zones"

mapfile -t commands < <(sed -n '/^Try next/,/^Ctrl-C/s/^  //p' "$tmp/out")
is "${#commands[@]}" 5 "it names five commands"
for command in ${commands[@]+"${commands[@]}"}; do
  ok "this works: ${command%%\'*}..." bash -c "$command"
done

socket=${uri#*socket=}
kill -INT -- "-$pid"
status=0
wait "$pid" || status=$?
is "$status" 0 "Ctrl-C ends it with status 0"
ok "the socket is gone" [ ! -e "$socket" ]
ok "its folder too" [ ! -e "${socket%/*}" ]

# The state is kept: the commands wrote, and reset again, zone 4.
# shellcheck disable=SC2016
ok "a second run serves the same disk" \
   "$top/quickstart" --run 'znbd report "$uri" --count 5'
