#!/bin/bash
# The first boot of a Raspberry Pi and its read-only root, without a board: the
# card that scripts/raspberry-pi.sh prepares, in a Debian that debootstrap makes,
# against a real backend. Takes root.
#
#   scripts/test-pi.sh                 makes a small Debian
#   scripts/test-pi.sh --base FOLDER   takes this one, which stays as it is:
#                                      debootstrap --variant=minbase
#                                      --include=ca-certificates,systemd trixie
#   scripts/test-pi.sh --bin FOLDER --deb FILE   takes programs and the agent's
#                                      package from there instead of building them
#
# It shows that user-data is as cloud-init's own schema wants it (where the
# package cloud-init can be had in the folder), that the first boot installs the
# package and enrols, that no code is left on the card, and that an agent whose
# root is an overlay in memory keeps its token and its reports on the partition
# of its state. It ends with 77 where it lacks what it needs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
# shellcheck source=scripts/folders.sh
. "$root/scripts/folders.sh"

base=
bin=
deb=
inside=no
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --base)
        shift
        base=$(realpath "${1:?a folder}")
        ;;
    --bin)
        shift
        bin=$(realpath "${1:?a folder}")
        ;;
    --deb)
        shift
        deb=$(realpath "${1:?a file}")
        ;;
    # The script runs again in namespaces of its own.
    --inside) inside=yes ;;
    *) die "test-pi.sh: there is no option $1" ;;
    esac
    shift
done
if [ "$inside" = no ]; then
    [ "$(id -u)" -eq 0 ] || impossible "debootstrap, chroot and mounts take root."
    unshare --net --mount --pid --fork true 2>/dev/null || impossible "No namespaces can be made here."
    postgres_bin >/dev/null || impossible "There is no PostgreSQL server."
    command -v debootstrap >/dev/null || "$root/scripts/install-packages.sh" debootstrap || impossible "There is no debootstrap."
    AV_PI_WORK=$(realpath "$(mktemp -d)")
    export AV_PI_WORK
    trap 'rm -rf --one-file-system "$AV_PI_WORK"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    chmod 755 "$AV_PI_WORK"
    if [ -z "$bin" ] || [ -z "$deb" ]; then
        need_cargo
        AV_BUILD_PROFILE=dev AV_DEB_FOLDER=$AV_PI_WORK/debs "$root/scripts/build-deb.sh"
        bin=${CARGO_TARGET_DIR:-$root/target}/debug
        deb=$(find "$AV_PI_WORK/debs" -name 'av-agent_*.deb')
    fi
    if [ -z "$base" ]; then
        base=$AV_PI_WORK/base
        make_debian "$base" trixie ca-certificates systemd
    fi
    # cloud-init, while there is a network.
    mkdir -p "$AV_PI_WORK"/tools/{upper,work,root}
    # shellcheck disable=SC2016  # the inner shell's own
    unshare --mount -- bash -c '
        set -e
        cd "$1/tools"
        mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/tools/upper,workdir=$1/tools/work" root
        cp /etc/resolv.conf root/etc/resolv.conf || true
        chroot root apt-get update
        DEBIAN_FRONTEND=noninteractive chroot root apt-get install -y --no-install-recommends cloud-init' \
        sh "$AV_PI_WORK" "$base" >"$AV_PI_WORK/cloud-init.log" 2>&1 || complain "cloud-init cannot be had in the folder."
    unshare --net --mount --pid --fork --kill-child --mount-proc -- "$root/scripts/test-pi.sh" --inside --base "$base" \
        --bin "$bin" --deb "$deb"
    exit
fi

# ------------------------------------------------------------------ inside
work=$AV_PI_WORK
ip link set lo up
mount --make-rprivate /
until_true() {
    local seconds=$1 what=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || {
            tail -n 15 "$work"/*.log >&2
            die "✗ after $seconds s still not: $what"
        }
        sleep 0.2
    done
}

# A real backend, with one site.
as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups --)
id postgres >/dev/null 2>&1 || as_postgres=(setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups --)
database=$(mktemp -d /var/tmp/av-pi-XXXXXX)
trap 'rm -rf --one-file-system "$database"' EXIT
chmod 711 "$database"
mkdir "$database/data"
chown "$("${as_postgres[@]}" id -u)" "$database/data"
(
    cd /
    "${as_postgres[@]}" "$(postgres_bin)/initdb" --username=av --auth=trust --encoding=UTF8 --locale=C.UTF-8 \
        -D "$database/data" >"$work/initdb.log"
    exec "${as_postgres[@]}" "$(postgres_bin)/postgres" -D "$database/data" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= >"$work/postgres.log" 2>&1
) &
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -h 127.0.0.1 -U av -d "${1:-av}"; }
database_is_up() { echo 'SELECT 1' | sql postgres >/dev/null 2>&1; }
until_true 120 "PostgreSQL answers" database_is_up
echo 'CREATE DATABASE av' | sql postgres
export DATABASE_URL=postgres://av@127.0.0.1/av
"$bin/av-backend" site add Paris --timezone Europe/Paris >/dev/null
sql <<<"UPDATE sites SET ok_interval_s = 60, ko_interval_s = 15"
sql <<<"INSERT INTO devices (site_id, name, ip, device_type, driver) SELECT id, 'Écran', '127.0.0.1', 'display', 'ping' FROM sites"
backend=
start_backend() {
    AV_LISTEN=127.0.0.1:8000 "$bin/av-backend" serve >>"$work/backend.log" 2>&1 &
    backend=$!
    until_true 120 "the backend answers" curl -fs -o /dev/null http://127.0.0.1:8000/health
}
stop_backend() {
    kill "$backend"
    wait "$backend" || true
}
start_backend

# ---------------------------------------------------------------- the card
code=ABCDE-FGHJK
sql <<SQL
INSERT INTO enrolments (site_id, digest, valid_until)
SELECT id, 'sha256:' || encode(sha256('ABCDEFGHJK'), 'hex'), now() + interval '15 minutes' FROM sites
SQL
boot=$work/boot
mkdir "$boot"
prepare() { "$root/scripts/raspberry-pi.sh" --backend http://127.0.0.1:8000 --timezone Europe/Paris "$@" "$boot"; }
for wrong in 'A;B' 'ABCDE' 'ABCDE-FGHJ$'; do
    ! prepare --code "$wrong" --deb "$deb" 2>/dev/null || die "✗ the code $wrong was taken"
done
! prepare --code "$code" 2>/dev/null || die "✗ a card without a package was prepared"
ssh-keygen -q -t ed25519 -N '' -C technician -f "$work/key" 2>/dev/null ||
    echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample technician' >"$work/key.pub"
prepare --code "$code" --deb "$deb" --user technician --ssh-key "$work/key.pub"
! grep -q '@[A-Z_]*@' "$boot/user-data" || die "✗ user-data has places that are not filled in"

tools=$work/tools
mount -t overlay overlay -o "lowerdir=$base,upperdir=$tools/upper,workdir=$tools/work" "$tools/root"
if [ -x "$tools/root/usr/bin/cloud-init" ]; then
    cp "$boot/user-data" "$tools/root/root/user-data"
    mount -t proc proc "$tools/root/proc"
    chroot "$tools/root" cloud-init schema --config-file /root/user-data ||
        die "✗ user-data is not as cloud-init wants it"
    umount "$tools/root/proc"
else
    complain "user-data is not held against cloud-init's schema"
fi
umount "$tools/root"

# boot_with UPPER: the root of one boot: what is on the card, below what this
# boot writes.
card=$work/card
mkdir -p "$card"/{upper,work} "$work/root" "$work/memory"
with_devices() {
    mount -t proc proc "$work/root/proc"
    mount --rbind /dev "$work/root/dev"
    mkdir -p "$work/root/boot/firmware"
    mount --bind "$boot" "$work/root/boot/firmware"
}
no_devices() {
    umount "$work/root/boot/firmware" "$work/root/proc"
    umount --recursive "$work/root/dev"
}

# ----------------------------------------------------------- the first boot
mount -t overlay overlay -o "lowerdir=$base,upperdir=$card/upper,workdir=$card/work" "$work/root"
with_devices
# What cloud-init does with write_files.
python3 - "$boot/user-data" "$work/root" <<'PYTHON'
import base64, pathlib, re, sys
text, root = pathlib.Path(sys.argv[1]).read_text(), pathlib.Path(sys.argv[2])
entries = re.split(r"^  - path: ", text.split("\nwrite_files:\n")[1].split("\nruncmd:\n")[0], flags=re.M)[1:]
for entry in entries:
    path, rest = entry.split("\n", 1)
    mode = int(re.search(r'permissions: "(\d+)"', rest)[1], 8)
    if "encoding: b64" in rest:
        content = base64.b64decode(re.search(r"content: (\S+)", rest)[1])
    else:
        body = rest.split("content: |\n")[1]
        content = "".join(line[6:] + "\n" for line in body.rstrip("\n").split("\n")).encode()
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(mode)
PYTHON
chroot "$work/root" /usr/local/sbin/av-first-boot || die "✗ the first boot failed"
[ ! -e "$work/root/etc/av-monitoring/first-boot" ] || die "✗ the first boot's settings are still there"
! grep -rq "$code" "$boot" "$card/upper/etc" || die "✗ the code is still on the card"
chroot "$work/root" /usr/local/sbin/av-first-boot || die "✗ a second run of the first boot failed"
chroot "$work/root" runuser -u av-agent -- test -r /etc/av-monitoring/agent/config.json ||
    die "✗ the configuration is not the agent's"
say "✓ the first boot installs the package, enrols, and leaves no code on the card"

# ------------------------------------------------- state on its own partition
# As docs/raspberry-pi.md says it.
state=$work/state
mkdir "$state"
cp -a "$work/root/var/lib/av-monitoring/." "$state/"
cp -a "$work/root/etc/av-monitoring/agent" "$state/agent-config"
no_devices
umount "$work/root"

agent=
boot_up() {
    mount -t tmpfs -o mode=755 memory "$work/memory"
    mkdir "$work/memory/upper" "$work/memory/work"
    mount -t overlay overlay \
        -o "lowerdir=$card/upper:$base,upperdir=$work/memory/upper,workdir=$work/memory/work" "$work/root"
    with_devices
    mount --bind "$state" "$work/root/var/lib/av-monitoring"
    mount --bind "$state/agent-config" "$work/root/etc/av-monitoring/agent"
    [ ! -e "$work/root/etc/marker" ] || die "✗ the root was written"
    touch "$work/root/etc/marker"
    # As the unit starts it.
    chroot "$work/root" setpriv --reuid=av-agent --regid=av-agent --init-groups --inh-caps=-all,+net_raw \
        --ambient-caps=-all,+net_raw -- env AGENT_CONFIG=/etc/av-monitoring/agent/config.json \
        AV_STATE_DIR=/var/lib/av-monitoring/agent AV_FIRST_SYNC_S=1 AV_PAGE_LISTEN=127.0.0.1:8080 /usr/bin/av-agent \
        >>"$work/agent.log" 2>&1 &
    agent=$!
}
# As a rack goes off: nothing is told to stop.
power_off() {
    kill -KILL "$agent"
    wait "$agent" 2>/dev/null || true
    umount "$work/root/var/lib/av-monitoring" "$work/root/etc/av-monitoring/agent"
    no_devices
    umount "$work/root" "$work/memory"
}
status_says() { "$bin/av-agent" status 2>/dev/null | grep -q "$1"; }
observed() { [ "$(sql <<<"SELECT count(*) FROM device_states WHERE status = 'online'")" = 1 ]; }

boot_up
until_true 120 "the backend knows the device" observed
token=$(sed -n 's/.*"site_token": *"\([^"]*\)".*/\1/p' "$state/agent-config/config.json" | head -n 1)
[ -n "$token" ] || die "✗ there is no token on the partition of the state"
stop_backend
until_true 120 "reports wait for the backend" status_says 'reports *[1-9][0-9]* wait'
power_off
boot_up
until_true 120 "the reports wait still after a reboot" status_says 'reports *[1-9][0-9]* wait'
power_off
start_backend
boot_up
until_true 180 "the reports have gone out after two reboots" status_says 'reports *none waits'
[ "$token" = "$(sed -n 's/.*"site_token": *"\([^"]*\)".*/\1/p' "$state/agent-config/config.json" | head -n 1)" ] ||
    die "✗ the agent has another token"
power_off
[ ! -e "$card/upper/etc/marker" ] || die "✗ the root was written"
stop_backend
say "✓ with a root in memory the agent keeps token and reports over reboots without a word of warning"
