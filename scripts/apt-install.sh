#!/bin/sh
# Installs Debian packages where that needs no password: apt-install.sh PACKAGE...
# Fails where there is no apt, or neither root nor a sudo that asks nothing; the caller then says what is missing.
set -eu

command -v apt-get >/dev/null || exit 1
if [ "$(id -u)" = 0 ]; then
	as_root="env"
elif sudo -n true 2>/dev/null; then
	as_root="sudo -n env"
else
	exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { $as_root DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" </dev/null >"$log" 2>&1; }

echo "installing $* with apt"
apt update || true # stale lists may still do
if ! apt install --yes --no-install-recommends "$@"; then
	tail -n 20 "$log" >&2
	exit 1
fi
