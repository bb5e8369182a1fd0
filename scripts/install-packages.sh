#!/bin/bash
# Installs Debian packages as tests and demonstration want them: no service is
# started or enabled, and no PostgreSQL cluster is created, since both run
# private ones of their own.
#
#   scripts/install-packages.sh PACKAGE...
set -euo pipefail

# shellcheck source=scripts/progress.sh
. "$(dirname "${BASH_SOURCE[0]}")/progress.sh"

if [ "${1-}" = --help ] || [ $# -eq 0 ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi
[ "$(id -u)" -eq 0 ] || {
    echo "Installing packages takes root." >&2
    exit 1
}
command -v apt-get >/dev/null || {
    echo "This is no Debian. Install what corresponds to: $*" >&2
    exit 1
}

export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
stage=$(mktemp)
policy=/usr/sbin/policy-rc.d
clusters=/etc/postgresql-common/createcluster.conf
made_policy=no
saved_clusters=

restore() {
    if [ "$made_policy" = yes ]; then rm -f "$policy"; fi
    if [ -n "$saved_clusters" ]; then
        cat "$saved_clusters" >"$clusters"
        rm -f "$saved_clusters"
    fi
    rm -f "$log" "$stage"
}
trap restore EXIT

# apt-get with the stage it is at in a file, for who waits.
apt_get() { apt-get -o APT::Status-Fd=3 "$@" >>"$log" 2>&1 3>"$stage"; }

# Prints that stage: "pmstatus:libpq5:45.5:Unpacking libpq5 (amd64)".
apt_stage() { tail -n 1 "$stage" | cut -d: -f4-; }

install() {
    ticking 'apt-get install' apt_stage apt_get install -y --no-install-recommends "$@"
}

installable() {
    # Simulated: says whether the package lists are good enough.
    apt-get install -s --no-install-recommends "$@" >/dev/null 2>&1
}

say "Installing $*"
if ! [ -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made_policy=yes
fi

# Says by its exit code whether all went well: `set -e` is off in a condition.
install_all() {
    local package
    for package in "$@"; do
        [ "$package" = postgresql ] || continue
        install postgresql-common || return 1
        if [ -z "$saved_clusters" ]; then
            saved_clusters=$(mktemp)
            cat "$clusters" >"$saved_clusters"
            echo 'create_main_cluster = false' >>"$clusters"
        fi
    done
    install "$@"
}

update() { ticking 'apt-get update' apt_stage apt_get update; }

ticking 'reading the package lists' true installable "$@" || update || true
# Lists that are a little old name files that the mirror no longer has.
install_all "$@" || { update && install_all "$@"; } || {
    cat "$log" >&2
    echo "Could not install: $*" >&2
    exit 1
}

if [ -d /run/systemd/system ]; then
    for package in "$@"; do
        [ "$package" = snmpd ] || continue
        # Not at the next boot either.
        systemctl disable --now snmpd.service >>"$log" 2>&1 || true
    done
fi
