# shellcheck shell=bash
# A Debian that runs its own systemd in namespaces of its own: processes,
# mounts, host name, network, cgroups. Sourced by the tests that need real
# units, after lib.sh. Takes root; nothing of the machine is reached from it.
#
#   boot FOLDER WORK    starts systemd there; what it changes is in WORK
#   inside COMMAND...   runs a command as root in it
#   halt                ends it with all its processes and mounts
#
# All functions return 77 where the machine lacks what they need.

# shellcheck source=scripts/folders.sh
. "$(dirname "${BASH_SOURCE[0]}")/folders.sh"

booted_unshare=
booted_init=
booted_group=

# What is done in the new namespaces, before systemd is process 1 there: its
# folder becomes `/`, with what a container's systemd expects below it.
# shellcheck disable=SC2016  # expanded by the shell inside
booted_inside='
set -eu
folder=$1 work=$2
new=$work/root
mount -t overlay overlay -o "lowerdir=$folder,upperdir=$work/upper,workdir=$work/overlay" "$new"
mount -t proc proc "$new/proc"
# The kernel is the machine'"'"'s: of its settings those of the network alone are
# this one'"'"'s own.
mount --bind "$new/proc/sys" "$new/proc/sys"
mount --bind "$new/proc/sys/net" "$new/proc/sys/net"
mount -o remount,bind,ro "$new/proc/sys"
mkdir -p "$new/etc/sysctl.d"
for file in "$new"/usr/lib/sysctl.d/*.conf; do
    [ ! -e "$file" ] || ln -sf /dev/null "$new/etc/sysctl.d/${file##*/}"
done
[ ! -e "$new/proc/sysrq-trigger" ] || mount --bind /dev/null "$new/proc/sysrq-trigger"
mount -t sysfs -o nosuid,nodev,noexec sysfs "$new/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$new/sys/fs/cgroup"
mount -o remount,bind,ro "$new/sys"
mount -t tmpfs -o mode=755,nosuid tmpfs "$new/dev"
for device in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
    set -- $device
    mknod -m 666 "$new/dev/$1" c "$2" "$3"
done
ln -s /proc/self/fd "$new/dev/fd"
ln -s /proc/self/fd/0 "$new/dev/stdin"
ln -s /proc/self/fd/1 "$new/dev/stdout"
ln -s /proc/self/fd/2 "$new/dev/stderr"
mkdir "$new/dev/shm" "$new/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$new/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$new/dev/pts"
ln -s pts/ptmx "$new/dev/ptmx"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$new/run"
touch "$new/run/av-events"
mount --bind "$work/events" "$new/run/av-events"
hostname av-test
cd "$new"
mkdir -p "$new/run/before"
pivot_root . run/before
cd /
umount -l /run/before
rmdir /run/before
exec env -i container=av-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --show-status=no --log-target=journal </dev/null
'

# boot FOLDER WORK [SECONDS]
boot() {
    local folder=$1 work=$2 seconds=${3:-180} hierarchy event=''
    [ "$(id -u)" -eq 0 ] || {
        complain 'Namespaces with systemd in them take root.'
        return 77
    }
    mkdir -p "$work" "$work/root" "$work/upper" "$work/overlay"
    chmod 755 "$work" "$work/upper"
    mkdir -p "$work/upper/etc/systemd/system/multi-user.target.wants"
    # The machine's kernel and its modules are not this one's to change.
    ln -sf /dev/null "$work/upper/etc/systemd/system/systemd-modules-load.service"
    # systemd takes a machine without an id for a new one, and enables all that
    # its presets name.
    tr -d - </proc/sys/kernel/random/uuid >"$work/upper/etc/machine-id"
    echo av-test >"$work/upper/etc/hostname"
    printf '127.0.0.1 localhost av-test\n::1 localhost\n' >"$work/upper/etc/hosts"
    cat >"$work/upper/etc/systemd/system/av-booted.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo booted >/run/av-events'
UNIT
    ln -sf ../av-booted.service "$work/upper/etc/systemd/system/multi-user.target.wants/"
    rm -f "$work/events"
    mkfifo "$work/events"
    # Newer versions of systemd run on the second version of cgroups only. Where
    # the machine has the first, or both, this one gets a hierarchy of the second.
    hierarchy=$(findmnt --raw --noheadings --types cgroup2 --output TARGET | head -n 1)
    if [ -z "$hierarchy" ]; then
        hierarchy=$work/cgroup
        mkdir -p "$hierarchy"
        mount -t cgroup2 cgroup2 "$hierarchy" || {
            complain 'There is no cgroup2.'
            return 77
        }
    fi
    booted_group=$hierarchy/av-test-$$-$RANDOM
    mkdir "$booted_group" || return 77
    # Held open, so that no writer waits.
    exec {booted_events}<>"$work/events"
    (
        echo "$BASHPID" >"$booted_group/cgroup.procs"
        # Where this script is killed, so is the machine that it has made.
        exec setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child=KILL \
            --uts --ipc --net --cgroup -- sh -c "$booted_inside" sh "$folder" "$work" \
            >"$work/console" 2>&1 {booted_events}>&-
    ) &
    booted_unshare=$!
    local left=$seconds
    while [ "$left" -gt 0 ] && ! read -r -t 1 -u "$booted_events" event; do
        kill -0 "$booted_unshare" 2>/dev/null || break
        left=$((left - 1))
    done
    if [ "$event" != booted ]; then
        if kill -0 "$booted_unshare" 2>/dev/null; then
            complain "systemd has not booted within $seconds s:"
        else
            complain 'systemd does not run here:'
        fi
        tail -n 20 "$work/console" >&2
        return 77
    fi
    booted_init=$(cat "/proc/$booted_unshare/task/$booted_unshare/children")
    booted_init=${booted_init%% *}
    inside timeout "$seconds" systemctl is-system-running --wait >"$work/state" || true
    case $(cat "$work/state") in
    running) ;;
    *)
        complain "systemd is $(cat "$work/state"):"
        inside systemctl --failed --no-legend --plain >&2
        return 1
        ;;
    esac
}

# The command that enters, for other programs.
enter_command() {
    say "nsenter --target $booted_init --mount --uts --ipc --net --pid --cgroup --root -- \
env -i --chdir=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb"
}

inside() {
    local -a enter
    read -ra enter < <(enter_command)
    "${enter[@]}" "$@"
}

halt() {
    local group
    [ -n "$booted_unshare" ] || return 0
    # With its process 1 everything in it ends, and its mounts with the last.
    kill -KILL "$booted_unshare" 2>/dev/null || true
    wait "$booted_unshare" 2>/dev/null || true
    booted_unshare=
    while read -r group; do
        rmdir "$group" 2>/dev/null || {
            # The kernel takes a moment for the last of its processes.
            # shellcheck disable=SC2016  # the inner shell's
            timeout 10 sh -c 'while grep -q "populated 1" "$1/cgroup.events"; do sleep 0.1; done' sh "$group" || true
            rmdir "$group" || true
        }
    done < <(find "$booted_group" -depth -type d 2>/dev/null)
    exec {booted_events}>&-
}
