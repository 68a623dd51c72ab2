#!/bin/sh
# Puts the gRPC client for Node, with its xDS, into the folder given, for the tests of the room xds: fetch-grpc-js.sh
# .tools/grpc-js. Versions and hashes are those of scripts/grpc-js/package-lock.json; what is there already is kept.
# Without node and npm, or without a registry, those tests are skipped: that is told here, and is no failure.
set -eu

folder=$1
here=$(dirname "$0")

if [ -f "$folder/package-lock.json" ] && cmp -s "$here/grpc-js/package-lock.json" "$folder/package-lock.json"; then exit 0; fi
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
	echo "no node and npm here: the tests with the gRPC client for Node will be skipped (Debian, Ubuntu: apt-get install nodejs npm)" >&2
	exit 0
fi

mkdir -p "$(dirname "$folder")"
part=$(mktemp -d "$(dirname "$folder")/.part.XXXXXX")
trap 'rm -rf "$part"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "fetching the gRPC client for Node from npm (38 MB unpacked, once)"
cp "$here/grpc-js/package.json" "$part"
# The lock goes last, under its own name, so that an unfinished folder is never taken for a whole one.
cp "$here/grpc-js/package-lock.json" "$part/npm-shrinkwrap.json"
if ! (cd "$part" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error); then
	echo "npm could not fetch it: the tests with the gRPC client for Node will be skipped" >&2
	exit 0
fi
mv "$part/npm-shrinkwrap.json" "$part/package-lock.json"
rm -rf "$folder"
mv "$part" "$folder"
