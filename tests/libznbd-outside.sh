# SPDX-License-Identifier: BSD-3-Clause
# libznbd serves programs that know nothing of this tree: installed, found
# by pkg-config, and used by the man page's own example, compiled as C and,
# for the header, as C++.

. ./functions.sh
requires make
requires "$PKG_CONFIG"
if [ -n "${ZNBD_SANITIZER:-}" ]; then
  skip_all "a program outside would need the sanitizer too"
fi

# Whoever runs this by make has its flags and targets in the environment.
unset MAKEFLAGS MFLAGS MAKELEVEL DESTDIR

root=$tmp/root
for folder in zonelib client; do
  # Should it configure anew, that is not to find the tests' own nbdkit.
  ok "make install in $folder" \
     env PATH="${PATH#"$abs_top_builddir/tests/bin:"}" \
     make -C "$abs_top_builddir/$folder" install DESTDIR="$root"
done

pc=$(find "$root" -name libznbd.pc)
isnt "$pc" "" "libznbd.pc is installed"
export PKG_CONFIG_SYSROOT_DIR=$root
# libnbd is the machine's own and is asked for without the root in front.
pkg_config () { PKG_CONFIG_PATH=$(dirname "$pc") "$PKG_CONFIG" "$@" libznbd; }

ok "pkg-config finds it" pkg_config --exists
is "$(pkg_config --modversion)" "$(znbd --version | sed 's/.* //')" \
   "it has the version of znbd"
cflags=$(pkg_config --cflags)
libs=$(pkg_config --libs)
libdir=$(dirname "$(find "$root" -name libznbd.so)")

# Nothing but what the version script names leaves the library.
requires nm
exported=$(nm -D --defined-only "$libdir/libznbd.so" |
           sed -n 's/.* T //p' | sed 's/@.*//' | sort)
named=$(sed -n 's/^ *\(znbd_[a-z_]*\);$/\1/p' \
        "$abs_top_srcdir/client/libznbd.map" | sort)
is "$exported" "$named" "it exports what libznbd.map names"
declared=$(cat "$abs_top_srcdir/client/libznbd.h" \
               "$abs_top_srcdir/zonelib/znbd-types.h" |
           grep -o 'znbd_[a-z_]* (' | sed 's/ (//' | sort -u)
is "$exported" "$declared" "its headers declare the same"
for name in $exported; do
  like "$(cat "$abs_top_srcdir/client/libznbd.pod")" "$name \(" \
       "libznbd(3) has $name"
done

# The man page's first example.
awk '/^=head2/ { n++; next } /^=head1/ { n = 0 }
     /^=head1 EXAMPLES/ { on = 1 } on && n == 1 && /^( |$)/' \
    "$abs_top_srcdir/client/libznbd.pod" | sed 's/^ //' >"$tmp/prog.c"
ok "its example compiles" \
   $CC -Wall -Wextra -Werror $cflags "$tmp/prog.c" -o "$tmp/prog" $libs
start_nbdkit_zoned size=64M zone-size=4M conventional=1
znbd finish --zone 3 "$uri"
run env LD_LIBRARY_PATH="$libdir" "$tmp/prog" "$uri"
is "$status" 0 "the program runs"
is "$out" "0: not-wp
12582912: full" "and shows the zones that are not empty"
run env LD_LIBRARY_PATH="$libdir" "$tmp/prog" "nbd+unix:///?socket=$tmp/no"
is "$status" 1 "without a server it fails"
like "$out" 'No such file' "and says why"

# The second one: appends, for which stock nbdkit has no context.
awk '/^=head2/ { n++; next } /^=head1/ { n = 0 }
     /^=head1 EXAMPLES/ { on = 1 } on && n == 2 && /^( |$)/' \
    "$abs_top_srcdir/client/libznbd.pod" | sed 's/^ //' >"$tmp/append.c"
ok "the example with appends compiles" \
   $CC -Wall -Wextra -Werror $cflags "$tmp/append.c" -o "$tmp/append" $libs
run env LD_LIBRARY_PATH="$libdir" "$tmp/append" "$uri" 4
is "$status" 1 "where nothing can be appended it fails"
like "$out" 'takes no appends' "and says so"
start_znbd_server size=64M zone-size=4M conventional=1
run env LD_LIBRARY_PATH="$libdir" "$tmp/append" "$uri" 4
is "$status" 0 "with znbd-server it runs"
is "$(sed 's/.* is at //' <<<"$out" | sort -n)" \
   "$(seq 16777216 4096 17035264)" "each block has its place"
run env LD_LIBRARY_PATH="$libdir" "$tmp/append" "$uri" 0
is "$status" 1 "a conventional zone takes none"
like "$out" 'zone 0 is conventional' "and it says so"

# The other examples are pieces of programs.
{
  echo '#include <stdio.h>'
  echo '#include <inttypes.h>'
  echo '#include <libnbd.h>'
  echo '#include <libznbd.h>'
  echo 'void f (struct znbd_disk *, struct nbd_handle *, uint64_t);'
  echo 'void f (struct znbd_disk *disk, struct nbd_handle *nbd,'
  echo '        uint64_t offset) { static char buf[4096];'
  awk '/^=head2/ { n++; next } /^=head1/ { n = 0 }
       /^=head1 EXAMPLES/ { on = 1 } /^=head1 CONN/ { on = 0 }
       on && n > 2 && /^( |$)/' "$abs_top_srcdir/client/libznbd.pod"
  echo '}'
} >"$tmp/pieces.c"
ok "the other examples compile" \
   $CC -Wall -Wextra -Werror $cflags -c "$tmp/pieces.c" -o "$tmp/pieces.o"

if command -v c++ >/dev/null; then
  echo '#include <libznbd.h>
    int main () { return znbd_connect_uri (0, 0) ? 1 : 0; }' >"$tmp/prog.cc"
  ok "the header is C++ too" \
     c++ -Wall -Wextra -Werror $cflags "$tmp/prog.cc" -o "$tmp/progxx" $libs
  ok "and links" env LD_LIBRARY_PATH="$libdir" "$tmp/progxx"
else
  skip "the header is C++ too" "no C++ compiler"
fi
