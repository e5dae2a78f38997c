# SPDX-License-Identifier: BSD-3-Clause
# Macros of znbd's configure.ac.

# ZNBD_PACKAGE(VARIABLE-PREFIX, MODULE, VERSION, DEBIAN-PACKAGE)
# A pkg-config module that must be there, in VERSION or newer.  Says whether
# it is missing or too old, and the package to install.
AC_DEFUN([ZNBD_PACKAGE], [
  PKG_CHECK_MODULES([$1], [$2 >= $3], [],
    [AS_IF([$PKG_CONFIG --exists $2],
           [znbd_version=`$PKG_CONFIG --modversion $2`
            AC_MSG_ERROR([$2 $znbd_version is too old: $3 or newer is needed ($4)])],
           [AC_MSG_ERROR([$2 not found: install $4])])])
])

# ZNBD_WARNINGS(FLAGS)
# Puts those of FLAGS that the compiler knows into WARNING_CFLAGS.
AC_DEFUN([ZNBD_WARNINGS], [
  WARNING_CFLAGS=
  znbd_save_CFLAGS=$CFLAGS
  for znbd_flag in m4_normalize([$1]); do
    AC_MSG_CHECKING([whether $CC takes $znbd_flag])
    CFLAGS="$znbd_save_CFLAGS -Werror $znbd_flag"
    AC_COMPILE_IFELSE([AC_LANG_SOURCE([int znbd_some;])],
      [AC_MSG_RESULT([yes])
       AS_VAR_APPEND([WARNING_CFLAGS], [" $znbd_flag"])],
      [AC_MSG_RESULT([no])])
  done
  CFLAGS=$znbd_save_CFLAGS
])

# ZNBD_SANITIZER(LIST)
# Sets SANITIZER_CFLAGS and SANITIZER_LDFLAGS; every finding is fatal.
AC_DEFUN([ZNBD_SANITIZER], [
  SANITIZER_LDFLAGS="-fsanitize=$1"
  SANITIZER_CFLAGS="-fsanitize=$1 -fno-sanitize-recover=all"
  AS_VAR_APPEND([SANITIZER_CFLAGS], [" -fno-omit-frame-pointer"])
  AC_MSG_CHECKING([whether $CC can build with -fsanitize=$1])
  znbd_save_CFLAGS=$CFLAGS
  CFLAGS="$CFLAGS $SANITIZER_CFLAGS"
  AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])],
    [AC_MSG_RESULT([yes])],
    [AC_MSG_RESULT([no])
     AC_MSG_ERROR([$CC cannot build with -fsanitize=$1: see config.log])])
  CFLAGS=$znbd_save_CFLAGS
])
