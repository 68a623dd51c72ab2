#!/bin/sh
# Runs every test, from the top of the repository: test.sh [option of go test]...
# make test calls it, with the paths of Envoy and a redis-server in the environment. The race detector is on wherever a
# C compiler can be had.
set -eu

here=$(dirname "$0")
started=$(date +%s)
failed=

: "${LEGATION_ENVOY:?}" "${LEGATION_REDIS_SERVER:?}"
# A checkout that belongs to another user, as in a container, makes git refuse and go build with it.
GOFLAGS="$(go env GOFLAGS) -buildvcs=false"
export GOFLAGS

stage() { printf '\n==> %s (%d s)\n' "$*" $(($(date +%s) - started)); }

# race tells whether a program can be built with the race detector: it wants a C compiler and a platform that has it.
race() {
	folder=$(mktemp -d)
	echo 'package main; func main() {}' >"$folder/main.go"
	status=0
	CGO_ENABLED=1 go build -race -o "$folder/main" "$folder/main.go" >"$folder/log" 2>&1 || status=1
	rm -rf "$folder"
	return $status
}

stage "preparing the race detector"
CGO_ENABLED=1
detector=-race
if ! race && ! { "$here/apt-install.sh" gcc libc6-dev && race; }; then
	echo "no C compiler (gcc, libc6-dev) here and none could be installed: testing without the race detector" >&2
	CGO_ENABLED=0
	detector=-race=false
fi
export CGO_ENABLED

# As make build does. What it is made of is then there for the tests that build it, which have their bounds in time.
stage "building the program"
CGO_ENABLED=0 go build -o /dev/null ./cmd/legation || failed="$failed build"

stage "every room, goldens and documents (the first run compiles for a few minutes before it prints)"
# store goes first: most of its time it waits for outages, and at the end nothing would run beside it.
packages="$(go list ./store) $(go list ./... | grep -v '/e2e\(/\|$\)' | grep -v '/store$')"
# Three at a time on two cores, as many of them wait; without vet, which make check has run over all of it; and without the
# second that each program would sleep at its end, for races of what it leaves running.
# shellcheck disable=SC2086 # many words, and import paths hold no spaces
GORACE="atexit_sleep_ms=50 ${GORACE:-}" go test $detector -vet=off -p $(($(getconf _NPROCESSORS_ONLN) + 1)) -timeout 8m "$@" $packages || failed="$failed rooms"

stage "what the race detector would only slow down or change: costs, and random policies"
CGO_ENABLED=0 go test -vet=off -timeout 5m -run 'CostLittle|HoldNobodyElseUp|KeepsOneLoad|LoadingAgain|WhatIsMadeOfAChange|CombinationsThatPass|WhatIsAccepted' "$@" ./control ./feature ./policy || failed="$failed unraced"

# A module of its own: what gRPC's client needs is no dependency of the program. Compiling all that for the race detector
# would take a minute, for tests of what goes over the wire.
stage "clients of gRPC for Go and for Node"
(cd xds/proxyless && CGO_ENABLED=0 go test -vet=off -timeout 5m "$@" ./...) || failed="$failed proxyless"

# One package at a time, always anew: they start processes that go test's cache knows nothing of. The program that they
# build is the one of make build, without cgo.
if [ -d e2e ]; then
	envoy=$("$LEGATION_ENVOY" --version | sed -n 's|.*/\([0-9.]*\)/.*|\1|p')
	redis=$("$LEGATION_REDIS_SERVER" --version | sed -n 's/.* v=\([0-9.]*\).*/\1/p')
	stage "end to end, with Envoy $envoy and Redis $redis"
	go test $detector -vet=off -timeout 8m -count=1 -p 1 -exec 'env CGO_ENABLED=0' "$@" ./e2e/... || failed="$failed e2e"
fi

took=$(($(date +%s) - started))
if [ -n "$failed" ]; then
	printf '\nmake test: FAILED in:%s (%d s)\n' "$failed" $took
	exit 1
fi
printf '\nmake test: all tests passed in %d s\n' $took
