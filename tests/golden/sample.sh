#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The sample of known-answer cases that comes with the source. The distribution's Python is asked
# first: numpy is installed for that one.
set -u
: "${top_srcdir:=.}" "${OOCBAKE:=./oocbake}"
for python in /usr/bin/python3 python3; do
	if "$python" -c 'import numpy' 2>/dev/null; then
		exec "$python" "$top_srcdir/tests/golden/run.py" --quiet --oocbake "$OOCBAKE"
	fi
done
echo "numpy is not installed (python3-numpy)"
exit 99
