#!/bin/sh
# Installs the Debian packages named in debian-packages.txt that are missing, or says which are and how to get them.
# Never fails: the tests themselves say what they could not have, and NMS_REQUIRE_REAL=1 makes that a failure.
set -u
cd "$(dirname "$0")" || exit 1

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "Not a Debian system: tests that need one of these are skipped, unless you install them your way:"
    sed '/^#/d' debian-packages.txt
    exit 0
fi

missing=
for package in $(sed '/^#/d' debian-packages.txt); do
    case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
        *" installed") ;;
        *) missing="$missing $package" ;;
    esac
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Some tests are skipped for want of these Debian packages. To have them:"
    echo "    sudo apt-get install --no-install-recommends$missing"
    exit 0
fi

echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q </dev/null || echo "apt-get update failed; going on with the lists there are"
for package in $missing; do # one by one: another release of the system may lack one of them
    apt-get install -qq -y --no-install-recommends "$package" </dev/null >/dev/null || echo "$package could not be installed"
done
