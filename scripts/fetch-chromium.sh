#!/bin/sh
# Finds the Chromium of the tests that log in with a browser, or installs it with apt where that needs no password. There
# is none in the registries that we fetch from; where it can't be had, those tests are skipped.
set -eu

here=$(dirname "$0")

if [ -n "${LEGATION_CHROMIUM:-}" ]; then
	if ! "$LEGATION_CHROMIUM" --version >/dev/null 2>&1; then
		echo "LEGATION_CHROMIUM names $LEGATION_CHROMIUM, which does not run" >&2
		exit 1
	fi
	exit 0
fi
for name in chromium chromium-browser google-chrome chrome headless-shell; do
	! command -v "$name" >/dev/null || exit 0
done
# Ubuntu's is a snap, which tests can't start everywhere.
if grep -qs '^ID=debian' /etc/os-release && "$here/apt-install.sh" chromium; then exit 0; fi
echo "no Chromium here (LEGATION_CHROMIUM or PATH): logging in with a browser is not tested" >&2
