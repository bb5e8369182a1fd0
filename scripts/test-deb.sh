#!/bin/bash
# Installs, upgrades, removes and purges the Debian packages in a folder of
# their own, a small Debian that debootstrap makes. Takes root.
#
#   scripts/test-deb.sh           makes the folder, and deletes it
#   scripts/test-deb.sh FOLDER    uses this one, made with
#                                 debootstrap --variant=minbase --include=systemd,ca-certificates
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

if [ "${1-}" = --help ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi
[ "$(id -u)" -eq 0 ] || die "debootstrap and chroot take root."
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
small=${1-}
made=
finish() {
    if [ -z "$made" ]; then return 0; fi
    # Nothing of the machine may be deleted through a mount.
    if grep -q " $made/" /proc/mounts; then
        complain "$made has mounts, and is left"
    else
        rm -rf --one-file-system "$made"
    fi
}
trap finish EXIT
if [ -z "$small" ]; then
    command -v debootstrap >/dev/null || "$root/scripts/install-packages.sh" debootstrap
    made=$(mktemp -d)
    small=$made
    debootstrap --variant=minbase --include=systemd,ca-certificates bookworm "$small" >"$target/debootstrap.log" 2>&1 ||
        die "debootstrap failed: $(tail -n 3 "$target/debootstrap.log")"
fi

export AV_DEB_PROFILE=${AV_DEB_PROFILE:-release}
"$root/scripts/build-deb.sh" --version 0.0.1
"$root/scripts/build-deb.sh" --version 0.0.2
architecture=$(dpkg --print-architecture)
cp "$target"/debian/av-*_0.0.[12]_"$architecture".deb "$small/root/"
rm -f "$target"/debian/av-*_0.0.[12]_*.deb

within() { chroot "$small" "$@"; }
there() { [ -e "$small$1" ] || die "✗ $2: $1 is not there"; }
gone() { [ ! -e "$small$1" ] || die "✗ $2: $1 is still there"; }
dpkg_in() { DEBIAN_FRONTEND=noninteractive within dpkg "$@" >/dev/null; }
before=$(within sh -c 'cat /etc/passwd /etc/group; find /etc /usr /var/lib -path /var/lib/dpkg -prune -o -print | sort')

for name in av-agent av-backend; do
    part=${name#av-}
    dpkg_in -i "/root/${name}_0.0.1_$architecture.deb"
    within "/usr/bin/$name" --version >/dev/null || die "✗ $name does not run"
    for file in "/lib/systemd/system/$name.service" "/etc/av-monitoring/$part.env" /var/lib/av-monitoring; do
        there "$file" 'after the installation'
    done
    within getent passwd "$name" >/dev/null || die "✗ there is no user $name"
    # Changed by the administrator, and state from a running program.
    echo '#kept' >>"$small/etc/av-monitoring/$part.env"
    mkdir -p "$small/var/lib/av-monitoring/$part"
    echo state >"$small/var/lib/av-monitoring/$part/state"
    dpkg_in -i "/root/${name}_0.0.2_$architecture.deb"
    grep -q '#kept' "$small/etc/av-monitoring/$part.env" || die "✗ the upgrade lost a changed conffile of $name"
    # shellcheck disable=SC2016  # dpkg-query's own
    within dpkg-query -W -f '${Version}' "$name" | grep -qx 0.0.2 || die "✗ $name is not upgraded"
    say "$name: installed, upgraded with a changed conffile"
done
[ "$(within stat -c '%U %a' /etc/av-monitoring/agent)" = 'av-agent 700' ] || die '✗ the folder of the token is open to others'

for name in av-agent av-backend; do
    part=${name#av-}
    dpkg_in -r "$name"
    gone "/usr/bin/$name" 'after the removal'
    there "/etc/av-monitoring/$part.env" 'after the removal'
    there "/var/lib/av-monitoring/$part/state" 'after the removal'
    dpkg_in -P "$name"
    say "$name: removed with configuration and state kept, purged"
done
after=$(within sh -c 'cat /etc/passwd /etc/group; find /etc /usr /var/lib -path /var/lib/dpkg -prune -o -print | sort')
left=$(diff <(printf '%s\n' "$before") <(printf '%s\n' "$after") | grep '^[<>]' | grep -v '/etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)-$\|/etc/.pwd.lock' || true)
[ -z "$left" ] || die "✗ the purge leaves: $left"
say 'The purge leaves nothing.'
rm -f "$small"/root/av-*.deb
