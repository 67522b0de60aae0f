#!/bin/sh
# Installs the Debian packages named in debian-packages.txt that are missing, or says which are and how to get them.
# Never fails: the tests themselves say what they could not have, and NMS_REQUIRE_REAL=1 makes that a failure.
set -u
cd "$(dirname "$0")" || exit 1

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "Not a Debian system: tests that need one of these are skipped, unless you install them your way:"
    sed '/^#/d; s/ .*//' debian-packages.txt
    exit 0
fi

missing=
for package in $(sed '/^#/d; s/ .*//' debian-packages.txt); do
    case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
        *" installed") ;;
        *) missing="$missing $package" ;;
    esac
done
[ -z "$missing" ] && exit 0

# The suite a package is to come from, when the list names one: "backports" is <release>-backports.
suite_of() { sed -n "s/^$1 //p" debian-packages.txt; }

# Makes that suite known to apt, from where the release itself comes. A second time it changes nothing.
add_suite() {
    added=/etc/apt/sources.list.d/nms-workers-$1.sources
    [ -e "$added" ] && return
    grep -rqs "$1" /etc/apt/sources.list /etc/apt/sources.list.d && return
    awk -v RS= -v suite="$1" -v release="${1%%-*}" '
        $0 ~ "(^|\n)Suites:[^\n]* ?" release "( |\n|$)" {
            gsub(/(^|\n)#[^\n]*/, ""); sub(/^\n/, ""); sub(/Suites:[^\n]*/, "Suites: " suite); print; exit
        }' /etc/apt/sources.list.d/*.sources >"$added"
    [ -s "$added" ] && return
    awk -v suite="$1" -v release="${1%%-*}" '
        $1 == "deb" { for (i = 2; i < NF; i++) if ($i == release) { $i = suite; print; exit } }
        ' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null >"${added%.sources}.list"
    rm -f "$added"
}

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Some tests are skipped for want of these Debian packages. To have them:"
    echo "    sudo apt-get install --no-install-recommends$missing"
    exit 0
fi

echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
for package in $missing; do
    suite=$(suite_of "$package")
    [ -n "$suite" ] && [ -n "$release" ] && add_suite "$release-$suite"
done
apt-get update -q </dev/null || echo "apt-get update failed; going on with the lists there are"
for package in $missing; do # one by one: another release of the system may lack one of them
    suite=$(suite_of "$package")
    apt-get install -qq -y --no-install-recommends ${suite:+-t "$release-$suite"} "$package" </dev/null >/dev/null || echo "$package could not be installed"
done
