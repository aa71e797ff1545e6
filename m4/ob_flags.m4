dnl SPDX-License-Identifier: Apache-2.0
dnl Compiler and linker flags, each tried alone: one that a compiler does not know is left out.

dnl OB_TRY_CFLAG(VARIABLE, FLAG): appends FLAG to VARIABLE when the compiler takes it.
AC_DEFUN([OB_TRY_CFLAG], [
AS_VAR_PUSHDEF([cache], [ob_cv_cflag_$2])
AC_CACHE_CHECK([whether $CC accepts $2], [cache], [
	ob_save_cflags=$CFLAGS
	CFLAGS="$CFLAGS -Werror $2"
	AC_COMPILE_IFELSE([AC_LANG_PROGRAM()], [AS_VAR_SET([cache], [yes])], [AS_VAR_SET([cache], [no])])
	CFLAGS=$ob_save_cflags])
AS_VAR_IF([cache], [yes], [$1="$$1 $2"])
AS_VAR_POPDEF([cache])])

AC_DEFUN([OB_TRY_LDFLAG], [
AS_VAR_PUSHDEF([cache], [ob_cv_ldflag_$2])
AC_CACHE_CHECK([whether the linker accepts $2], [cache], [
	ob_save_ldflags=$LDFLAGS
	LDFLAGS="$LDFLAGS $2"
	AC_LINK_IFELSE([AC_LANG_PROGRAM()], [AS_VAR_SET([cache], [yes])], [AS_VAR_SET([cache], [no])])
	LDFLAGS=$ob_save_ldflags])
AS_VAR_IF([cache], [yes], [$1="$$1 $2"])
AS_VAR_POPDEF([cache])])

dnl OB_WARNINGS: WARN_CFLAGS, with -Werror under --enable-werror.
AC_DEFUN([OB_WARNINGS], [
AC_ARG_ENABLE([werror], [AS_HELP_STRING([--enable-werror], [treat warnings as errors])],
	[], [enable_werror=no])
WARN_CFLAGS=
m4_foreach_w([flag], [-Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
	-Wvla -Wformat=2 -Wdate-time], [OB_TRY_CFLAG([WARN_CFLAGS], flag)])
dnl With instrumentation gcc misjudges what fits.
AS_IF([test "x$INSTRUMENT_CFLAGS" != x], [OB_TRY_CFLAG([WARN_CFLAGS], [-Wno-format-truncation])])
AS_IF([test "x$enable_werror" = xyes], [WARN_CFLAGS="$WARN_CFLAGS -Werror"])
AC_SUBST([WARN_CFLAGS])])

dnl OB_HARDENING: HARDEN_CPPFLAGS, HARDEN_CFLAGS, HARDEN_LDFLAGS; empty in sanitizer and coverage
dnl builds, which replace them. -ftrivial-auto-var-init is not among them: it hides from valgrind
dnl what it repairs.
AC_DEFUN([OB_HARDENING], [
HARDEN_CPPFLAGS= HARDEN_CFLAGS= HARDEN_LDFLAGS=
AS_IF([test "x$enable_sanitizer$enable_coverage" = xnono], [
	AS_CASE([" $CPPFLAGS $CFLAGS"],
		[*_FORTIFY_SOURCE*|*" -O0"*], [],
		[HARDEN_CPPFLAGS="-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"])
	m4_foreach_w([flag], [-fstack-protector-strong -fstack-clash-protection -fcf-protection],
		[OB_TRY_CFLAG([HARDEN_CFLAGS], flag)])
	m4_foreach([flag], [[-Wl,-z,relro], [-Wl,-z,now], [-Wl,-z,noexecstack]],
		[OB_TRY_LDFLAG([HARDEN_LDFLAGS], flag)])])
AC_SUBST([HARDEN_CPPFLAGS])
AC_SUBST([HARDEN_CFLAGS])
AC_SUBST([HARDEN_LDFLAGS])])

dnl OB_INSTRUMENT: --enable-sanitizer, --enable-fuzzing and --enable-coverage; INSTRUMENT_CFLAGS is
dnl for compiling and linking, FUZZ_LDFLAGS for the fuzz targets.
AC_DEFUN([OB_INSTRUMENT], [
AC_ARG_ENABLE([sanitizer], [AS_HELP_STRING([--enable-sanitizer=LIST], [build with sanitizers: address,undefined or thread])],
	[], [enable_sanitizer=no])
AC_ARG_ENABLE([fuzzing], [AS_HELP_STRING([--enable-fuzzing], [build tests/fuzz as libFuzzer targets (clang), by default with address,undefined])],
	[], [enable_fuzzing=no])
AC_ARG_ENABLE([coverage], [AS_HELP_STRING([--enable-coverage], [build for gcov])],
	[], [enable_coverage=no])
INSTRUMENT_CFLAGS= FUZZ_LDFLAGS=
AS_IF([test "x$enable_sanitizer" = xyes || test "x$enable_sanitizer$enable_fuzzing" = xnoyes],
      [enable_sanitizer=address,undefined])
AS_IF([test "x$enable_sanitizer" != xno],
      [INSTRUMENT_CFLAGS="-fsanitize=$enable_sanitizer -fno-sanitize-recover=all -fno-omit-frame-pointer"])
AS_IF([test "x$enable_fuzzing" = xyes],
      [INSTRUMENT_CFLAGS="$INSTRUMENT_CFLAGS -fsanitize=fuzzer-no-link" FUZZ_LDFLAGS=-fsanitize=fuzzer])
AS_IF([test "x$enable_coverage" = xyes], [INSTRUMENT_CFLAGS="$INSTRUMENT_CFLAGS --coverage"])
AS_IF([test "x$INSTRUMENT_CFLAGS" != x], [INSTRUMENT_CFLAGS="$INSTRUMENT_CFLAGS -DOB_INSTRUMENTED"])
AS_IF([test "x$INSTRUMENT_CFLAGS" != x], [
	AC_MSG_CHECKING([whether $CC can link with $INSTRUMENT_CFLAGS])
	ob_save_cflags=$CFLAGS
	CFLAGS="$CFLAGS $INSTRUMENT_CFLAGS"
	AC_LINK_IFELSE([AC_LANG_PROGRAM()], [AC_MSG_RESULT([yes])],
		[AC_MSG_RESULT([no])
		 AC_MSG_ERROR([$CC cannot link with $INSTRUMENT_CFLAGS; fuzzing needs clang and its run-time library])])
	CFLAGS=$ob_save_cflags])
AM_CONDITIONAL([FUZZING], [test "x$enable_fuzzing" = xyes])
AC_SUBST([INSTRUMENT_CFLAGS])
AC_SUBST([FUZZ_LDFLAGS])])
