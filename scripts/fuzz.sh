#!/bin/sh
# Runs every fuzz target for a while, one after the other: fuzz.sh DURATION
# A failing input lands in the package's testdata/fuzz, where go test runs it from then on.
set -eu

duration=$1
listed=$(mktemp)
targets=$(mktemp)
trap 'rm -f "$listed" "$targets"' EXIT
go test -list '^Fuzz' ./... >"$listed"

failed=
awk '/^Fuzz/ { names[++n] = $1 } /^ok/ { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }' "$listed" >"$targets"
while read -r package name; do
	echo "==> $package $name"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$duration" "$package" </dev/null || failed="$failed $package:$name"
done <"$targets"

if [ -n "$failed" ]; then
	echo "make fuzz: FAILED:$failed" >&2
	exit 1
fi
echo "make fuzz: $(wc -l <"$targets") targets, none failed"
