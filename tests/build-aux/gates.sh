#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The gates of the build close: what they must refuse is refused.
set -eu
: "${top_srcdir:=.}"
wrapper=$top_srcdir/build-aux/test-wrapper
layers=$top_srcdir/build-aux/check-layers
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

refuse() {
	if "$@" >"$dir/log" 2>&1; then
		echo "passed, but must not: $*"
		exit 1
	fi
}

# A report that the program's exit status hides.
refuse "$wrapper" sh -c 'echo "==1==ERROR: LeakSanitizer: detected memory leaks"'
refuse "$wrapper" sh -c 'echo "x.c:1:2: runtime error: signed integer overflow" >&2'
refuse "$wrapper" sh -c 'echo "WARNING: ThreadSanitizer: data race"'
refuse "$wrapper" false
"$wrapper" true

# include_in FILE INCLUDE: a tree of one file.
include_in() {
	rm -rf "$dir/src"
	mkdir -p "$dir/src/${1%/*}"
	echo "#include $2" >"$dir/src/$1"
}
for case in 'base/x.c "io/io.h"' 'kernels/x.c "io/io.h"' 'codec/x.h "container/lister.h"' \
	'model/x.c "x.h"' 'plan/x.c "cli/cli.h"' 'misc/x.c "base/err.h"' 'engine/x.c <blis.h>' \
	'io/x.c "oocbake/oocbake.h"'; do
	include_in "${case%% *}" "${case#* }"
	refuse "$layers" "$dir"
done
for case in 'io/x.c "base/err.h"' 'codec/x.c "container/container.h"' 'cli/x.c "oocbake/oocbake.h"' \
	'kernels/gemm.c <blis.h>' 'base/x.c <stdio.h>'; do
	include_in "${case%% *}" "${case#* }"
	"$layers" "$dir"
done
