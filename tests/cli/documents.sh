#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# --help, the manual page and the shell completions name the same options and commands.
set -u
program=${OOCBAKE:-./oocbake}
docs=${srcdir:-.}/docs
failed=0

fail() {
	echo "FAIL: $1"
	failed=1
}

for command in bake plan verify inspect formats; do
	"$program" "$command" --help | grep -oE '(^| )--[a-z-]+' | tr -d ' '
done | sort -u >help.options
[ "$(wc -l <help.options)" -gt 20 ] || fail "--help shows $(wc -l <help.options) options"

sed -nE 's/.*Fl -([a-z-]+).*/--\1/p; s/.*, Fl -([a-z-]+).*/--\1/p' "$docs/man/oocbake.1" | sort -u >man.options
grep -oE -- '--[a-z][a-z-]+' "$docs/completions/oocbake.bash" | sort -u >bash.options
grep -oE -- '--[a-z][a-z-]+' "$docs/completions/_oocbake" | sort -u >zsh.options
sed -nE '/^complete/s/.* -l ([a-z-]+).*/--\1/p' "$docs/completions/oocbake.fish" | sort -u >fish.options

for where in man bash zsh fish; do
	for option in $(comm -23 help.options $where.options); do
		fail "$where does not know $option"
	done
	# --version belongs to no command.
	for option in $(comm -13 help.options $where.options | grep -vx -- --version); do
		fail "$where has $option, --help does not"
	done
done
for command in $("$program" --help | sed -nE 's/^  oocbake ([a-z]+) .*/\1/p'); do
	for file in man/oocbake.1 completions/oocbake.bash completions/_oocbake completions/oocbake.fish; do
		grep -q "\\b$command\\b" "$docs/$file" || fail "$file does not know the command $command"
	done
done
rm -f help.options man.options bash.options zsh.options fish.options
exit $failed
