dnl SPDX-License-Identifier: Apache-2.0
dnl OB_CHECK_BLIS: finds BLIS and sets BLIS_CFLAGS and BLIS_LIBS, so that <blis.h> compiles and the
dnl calls of src/kernels/gemm.c link. Distributions disagree on where the header is (Debian: the
dnl multiarch folder, Fedora: blis/blis.h), on the library's name, and on shipping a .pc file.
dnl Order: the user's variables, --with-blis=PREFIX, pkg-config, the compiler's own search path.

AC_DEFUN([OB_BLIS_PROGRAM], [AC_LANG_PROGRAM([[#include <blis.h>]], [[
	rntm_t rntm = BLIS_RNTM_INITIALIZER;
	float one = 1, c = 0;
	bli_rntm_set_num_threads(1, &rntm);
	bli_rntm_disable_l3_sup(&rntm);
	bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, 1, 1, 1, &one, &one, 1, 1, &one, 1, 1, &one,
		     &c, 1, 1, NULL, &rntm);
	return (int)c;
]])])

dnl OB_TRY_BLIS(CFLAGS, LIBS): the first pair that links is kept.
AC_DEFUN([OB_TRY_BLIS], [AS_IF([test "x$ob_blis" = xno], [
	ob_save_cppflags=$CPPFLAGS ob_save_libs=$LIBS
	CPPFLAGS="$CPPFLAGS $1" LIBS="$2 -lm $LIBS"
	AC_LINK_IFELSE([OB_BLIS_PROGRAM], [ob_blis=yes BLIS_CFLAGS="$1" BLIS_LIBS="$2"])
	CPPFLAGS=$ob_save_cppflags LIBS=$ob_save_libs
])])

AC_DEFUN([OB_CHECK_BLIS], [
AC_ARG_VAR([BLIS_CFLAGS], [C compiler flags for BLIS, overriding the search])
AC_ARG_VAR([BLIS_LIBS], [linker flags for BLIS, overriding the search])
AC_ARG_WITH([blis], [AS_HELP_STRING([--with-blis=PREFIX], [where BLIS is installed (default: search)])],
	[], [with_blis=yes])
AS_IF([test "x$with_blis" = xno], [AC_MSG_ERROR([BLIS cannot be left out])])
AC_MSG_CHECKING([for BLIS])
ob_blis=no
AS_IF([test "x$BLIS_LIBS" != x], [OB_TRY_BLIS([$BLIS_CFLAGS], [$BLIS_LIBS])],
      [test "x$with_blis" != xyes], [
	for ob_lib in blis blis-mt; do
		for ob_dir in "$with_blis/include" "$with_blis/include/blis"; do
			OB_TRY_BLIS([-isystem $ob_dir], [-L$with_blis/lib -l$ob_lib])
		done
	done], [
	for ob_lib in blis blis-mt; do
		AS_IF([$PKG_CONFIG --exists $ob_lib 2>/dev/null],
		      [OB_TRY_BLIS([`$PKG_CONFIG --cflags $ob_lib`], [`$PKG_CONFIG --libs $ob_lib`])])
	done
	ob_dir=`echo '#include <blis/blis.h>' | $CC $CPPFLAGS -E - 2>/dev/null |
		sed -n '/^# 1 ".*\/blis\/blis\.h"/{s/^# 1 "\(.*\)\/blis\.h".*/\1/p;q;}'`
	for ob_lib in blis blis-mt; do
		OB_TRY_BLIS([], [-l$ob_lib])
		AS_IF([test "x$ob_dir" != x], [OB_TRY_BLIS([-isystem $ob_dir], [-l$ob_lib])])
	done])
AC_MSG_RESULT([$ob_blis])
AS_IF([test "x$ob_blis" = xno], [AC_MSG_ERROR([BLIS was not found: install libblis-dev (Debian) or blis-devel (Fedora), or name its place with --with-blis=PREFIX or BLIS_CFLAGS and BLIS_LIBS])])
])
