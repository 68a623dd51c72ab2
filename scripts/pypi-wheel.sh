#!/bin/sh
# Unpacks one wheel from PyPI, checked by its hash: pypi-wheel.sh REQUIREMENTS FOLDER [option of pip download]...
# It needs Python 3 with pip, and no virtual environment: nothing is installed, so Debian's pip allows it.
set -eu

requirements=$1
folder=$2
shift 2

if ! python3 -m pip --version >/dev/null 2>&1; then
	echo "no Python 3 with pip here to fetch $(basename "$requirements" .txt) from PyPI (Debian, Ubuntu: apt-get install python3-pip)" >&2
	exit 1
fi

# On a terminal pip shows its own progress bar; in a log that would be noise.
[ -t 1 ] || set -- "$@" --quiet
PIP_REQUIRE_VIRTUALENV=false python3 -m pip download --disable-pip-version-check --retries 5 \
	--no-deps --only-binary=:all: --require-hashes --requirement "$requirements" --dest "$folder" "$@"
python3 -m zipfile -e "$folder"/*.whl "$folder"
