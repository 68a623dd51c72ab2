#!/bin/sh
# Checks, from the top of the repository: format, vet, staticcheck, the import table, go.mod, shell scripts. It goes
# through all of it and names what failed at the end. The tools are fetched by the go command itself.
set -eu

gofumpt=mvdan.cc/gofumpt@v0.12.0
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Without cgo, as make build, so that both share the build cache.
export CGO_ENABLED=0

started=$(date +%s)
failed=

# check NAME COMMAND...: runs it, and notes the name of what fails.
check() {
	name=$1
	shift
	printf '==> %s (%d s)\n' "$name" $(($(date +%s) - started))
	"$@" || failed="$failed, $name"
}

format() {
	unformatted=$(go run "$gofumpt" -l .) || return 1
	[ -z "$unformatted" ] && return
	echo "$unformatted"
	echo "mend with: go run $gofumpt -w ."
	return 1
}

tidy() {
	diff=$(go mod tidy -diff 2>&1) && return
	echo "$diff" | grep '^[-+]' | head -n 20
	echo "mend with: go mod tidy"
	return 1
}

clients() (
	cd xds/proxyless && go vet ./... && tidy
)

shell() {
	if ! command -v shellcheck >/dev/null; then
		echo "no shellcheck here: left out"
		return
	fi
	shellcheck scripts/*.sh .ci/run
}

check "gofumpt" format
check "go vet" go vet ./...
check "staticcheck" go run "$staticcheck" ./...
check "the module of gRPC's clients" clients
check "import table and sizes" go test -count=1 .
check "go.mod is tidy" tidy
check "shell scripts" shell

took=$(($(date +%s) - started))
if [ -n "$failed" ]; then
	printf 'make check: FAILED: %s (%d s)\n' "${failed#, }" $took
	exit 1
fi
printf 'make check: all clean in %d s\n' $took
