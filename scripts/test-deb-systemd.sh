#!/bin/bash
# Upgrades, downgrades, removes and purges the packages in a Debian that runs
# its own systemd: with the program broken or deaf, the database down, the
# configuration empty or missing. apt must end each time, in bounded time, with
# a word on what became of the program. And the first installation's next steps
# are done as they are printed. Takes root.
#
#   scripts/test-deb-systemd.sh                   trixie
#   scripts/test-deb-systemd.sh --suite bookworm  another one
#   scripts/test-deb-systemd.sh --packages FOLDER with the packages of version
#                                                 0.0.1 in this folder
#
# It ends with 77 where it lacks what it needs: see scripts/booted.sh.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
# shellcheck source=scripts/booted.sh
. "$root/scripts/booted.sh"
# shellcheck source=scripts/variants.sh
. "$root/scripts/variants.sh"

suite=trixie
given=
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --suite)
        shift
        suite=${1-}
        ;;
    --packages)
        shift
        given=$(realpath "${1-}")
        ;;
    *) die "test-deb-systemd.sh: there is no option $1" ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || impossible 'debootstrap and namespaces take root.'

work=$(realpath "$(mktemp -d)")
chmod 755 "$work"
finish() {
    local status=$?
    trap '' INT TERM
    halt
    remove_folder "$work" || status=1
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

here=$(dpkg --print-architecture)
mkdir "$work/debs"
if [ -z "$given" ]; then
    AV_BUILD_PROFILE=${AV_BUILD_PROFILE:-dev} AV_DEB_FOLDER=$work/debs "$root/scripts/build-deb.sh" --version 0.0.1
else
    cp "$given"/av-*_0.0.1_"$here".deb "$work/debs/"
fi
for name in av-agent av-backend; do
    first=$work/debs/${name}_0.0.1_$here.deb
    variant "$first" "$name" 0.0.2 same
    variant "$first" "$name" 0.0.3 broken
    variant "$first" "$name" 0.0.4 deaf
done

make_debian "$work/debian" "$suite" systemd systemd-sysv dbus ca-certificates sudo curl jq openssl iproute2 \
    iputils-ping procps libcap2-bin postgresql snmpd nginx
boot "$work/debian" "$work/machine"
cp "$work/debs"/*.deb "/proc/$booted_init/root/root/"
# The packages are there, and the disk is none to fill.
rm -r "$work/debs"

log=$work/log
within() { inside timeout 300 bash -euc "$1" </dev/null; }
says() { grep -q -- "$1" "$log" || die "✗ $2 does not say $1: $(cat "$log")"; }

# apt_does NAME VERSION: installs that version, whatever is there. It must end
# well, with the package whole, within two minutes.
apt_does() {
    local name=$1 version=$2 began=$SECONDS
    # shellcheck disable=SC2016  # dpkg-query's own
    inside timeout 120 env DEBIAN_FRONTEND=noninteractive apt-get install -y --allow-downgrades --reinstall \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        "/root/${name}_${version}_$here.deb" >"$log" 2>&1 </dev/null ||
        die "✗ $name $version ($((SECONDS - began)) s): $(tail -n 20 "$log")"
    # shellcheck disable=SC2016  # dpkg-query's own
    [ "$(inside dpkg-query -W -f '${Version} ${Status}' "$name")" = "$version install ok installed" ] ||
        die "✗ $name $version is not whole: $(tail -n 20 "$log")"
    took=$((SECONDS - began))
}
runs() { within "systemctl is-active --quiet $1" || die "✗ $2: $1 does not run: $(within "systemctl status --no-pager $1 || true")"; }
# What the unit's log has, once it is there.
logs() {
    within "for i in \$(seq 600); do ! journalctl -u $1 --no-pager -o cat | grep -q '$2' || exit 0; sleep 0.1; done; exit 1" ||
        die "✗ $1 never logs $2: $(within "journalctl -u $1 --no-pager -n 20")"
}

# The commands that the first installation prints, as they are. apt gives dpkg a
# terminal, whose lines end with a carriage return too.
printed_commands() { tr -d '\r' <"$log" | sed -n 's/^    \([a-z].*\)/\1/p'; }

apt_does av-backend 0.0.1
says 'Next:' 'the first installation of the backend'
printed_commands >"$work/commands"
grep -q 'systemctl enable --now av-backend' "$work/commands" || die "✗ the next steps are $(cat "$work/commands")"
while read -r command; do
    # It is there, and nothing can be fetched here.
    [ "$command" != 'apt install postgresql' ] || continue
    case $command in
    journalctl*) logs av-backend 'setup/' ;;
    esac
    within "$command" >"$work/said" 2>&1 || die "✗ the next step $command: $(cat "$work/said")"
done <"$work/commands"
grep -q 'http.*/setup/[0-9a-f]' "$work/said" || die "✗ the last step shows no link: $(cat "$work/said")"
runs av-backend 'after the next steps'
say "The backend's next steps are done as they are printed."

apt_does av-agent 0.0.1
says 'Next:' 'the first installation of the agent'
printed_commands >"$work/commands"
grep -q 'av-agent enroll' "$work/commands" || die "✗ the next steps are $(cat "$work/commands")"
# What enroll writes: codes are another test's.
# shellcheck disable=SC2016  # the shell inside expands it
within '
    token=$(set -a; . /etc/av-monitoring/backend.env; sudo --preserve-env=DATABASE_URL -u av-backend av-backend site add Paris)
    printf '\''{"site_name": "Paris", "site_token": "%s", "backend_url": "http://127.0.0.1:8000"}'\'' "$token" \
        >/etc/av-monitoring/agent/config.json
    chown av-agent: /etc/av-monitoring/agent/config.json
    systemctl enable --now av-agent' >"$log" 2>&1 || die "✗ the agent does not start: $(cat "$log")"
runs av-agent 'after the next steps'

for name in av-agent av-backend; do
    apt_does "$name" 0.0.2
    says "$name.service runs the new program" "the upgrade of $name"
    ! grep -q 'Next:' "$log" || die "✗ the upgrade of $name says what to do first"
    runs "$name" 'after the upgrade'
    say "$name: upgraded while it runs, $took s"

    apt_does "$name" 0.0.3
    says "$name.service DOES NOT RUN" "the upgrade to a broken $name"
    say "$name: upgraded to a broken program, $took s"
    apt_does "$name" 0.0.1
    says "$name.service runs the new program" "the downgrade of $name"
    runs "$name" 'after the downgrade'
    say "$name: downgraded from a broken program, $took s"
done

within 'systemctl stop postgresql'
apt_does av-backend 0.0.2
says 'av-backend.service runs the new program' 'the upgrade with the database down'
say "av-backend: upgraded with the database down, $took s"
within 'systemctl start postgresql'
# shellcheck disable=SC2016  # the shell inside expands it
within 'for i in $(seq 300); do ! curl -fsS http://127.0.0.1:8000/health >/dev/null 2>&1 || exit 0; sleep 0.1; done; exit 1' ||
    die '✗ the backend does not come back with its database'

# Configuration empty, then missing, then as it was.
kept=/etc/av-monitoring/backend.env
within "cp -p $kept /root/kept"
within ": >$kept"
apt_does av-backend 0.0.1
says 'av-backend.service DOES NOT RUN' 'the upgrade with an empty configuration'
say "av-backend: upgraded with an empty configuration, $took s"
within "rm $kept"
apt_does av-backend 0.0.2
says 'av-backend.service DOES NOT RUN' 'the upgrade without a configuration'
say "av-backend: upgraded without a configuration, $took s"
within "cp -p /root/kept $kept"
apt_does av-backend 0.0.1
says 'av-backend.service runs the new program' 'the upgrade with the configuration back'

# The agent keeps what it last understood beside its file, and may go on with
# that: the word is one of the two.
word='av-agent.service runs the new program\|av-agent.service DOES NOT RUN'
kept=/etc/av-monitoring/agent/config.json
within ": >$kept"
apt_does av-agent 0.0.1
says "$word" 'the upgrade with an empty configuration'
say "av-agent: upgraded with an empty configuration, $took s"
within "rm -r ${kept%/*}/*"
apt_does av-agent 0.0.2
says "$word" 'the upgrade without a configuration'
say "av-agent: upgraded without a configuration, $took s"

# Purged while it is tried again and again, and while it does not stop.
purge() {
    local name=$1 part=${1#av-} began=$SECONDS
    inside timeout 150 env DEBIAN_FRONTEND=noninteractive apt-get purge -y "$name" >"$log" 2>&1 </dev/null ||
        die "✗ the purge of $name: $(tail -n 20 "$log")"
    took=$((SECONDS - began))
    within "! getent passwd $name && [ ! -e /etc/av-monitoring/$part.env ] && [ ! -e /var/lib/av-monitoring/$part ] &&
        [ ! -e /usr/bin/$name ] && [ ! -L /etc/systemd/system/multi-user.target.wants/$name.service ]" ||
        die "✗ the purge of $name leaves something: $(cat "$log")"
    # shellcheck disable=SC2016  # the shell inside expands it
    within "[ \"\$(systemctl show --property=LoadState --value $name.service)\" = not-found ]" ||
        die "✗ systemd still knows $name"
}
apt_does av-agent 0.0.3
purge av-agent
say "av-agent: purged while its program is broken, $took s"
apt_does av-backend 0.0.4
purge av-backend
say "av-backend: purged while it does not stop, $took s"
say 'apt ends each time.'
