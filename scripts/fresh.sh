#!/bin/bash
# Runs ./demo.sh --check and ./test.sh as a new user does: in a fresh clone of
# the last commit, on a Debian that debootstrap makes in a folder.
#
#   scripts/fresh.sh                        every machine of the next list
#   scripts/fresh.sh trixie                 Debian's own cargo
#   scripts/fresh.sh bookworm-rustup        Rust from rustup
#   scripts/fresh.sh bookworm-web           Debian's cargo-web and rustc-web
#   scripts/fresh.sh MACHINE... -- OPTIONS  hands options to test.sh
#
# Any SUITE, SUITE-rustup and SUITE-web that the mirror has is a machine.
#
#   --as root|user     who runs the commands; a user has sudo without a
#                      password. Default: root
#   --demo, --test     only this command
#   --bin FOLDER       only the demonstration, with av-agent and av-backend of
#                      that folder, on a machine without Rust
#   --chroot           a plain chroot; else the folder becomes the root of its
#                      namespaces, in which tests can make more of them
#   --rust VERSION     what rustup installs. Default: stable
#   --folder FOLDER    keeps the machines in this folder, and takes them up
#                      again when they are there. Default: a new folder under
#                      /var/tmp, removed at the end
#   --shell            a shell there instead of the commands
#   --no-share         downloads every crate, instead of copying those that
#                      cargo has here
#   --no-install       ends instead of installing debootstrap
#
# DEBIAN_MIRROR names another mirror than debootstrap's own, and
# DEBIAN_SECURITY_MIRROR one of its security updates. It takes root, 8 GB of disk
# for each machine, and up to an hour and a half for each with two cores. It ends
# with "fresh: N passed, N failed", and with 77 where such a machine cannot be made.
# Interrupted or killed, it leaves no mount and no process.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$root/scripts/fresh.sh"; }
refuse() {
    complain "fresh.sh: $1"
    usage >&2
    exit 2
}

machines=()
test_options=()
account=root
commands=(demo test)
rust=stable
folder=
chroot=no
bin=
share=yes
install=yes
# The script runs again as the first process of its namespaces.
inside=no
arguments=("$@")
while [ $# -gt 0 ]; do
    case $1 in
    --as)
        account=${2-}
        shift
        ;;
    --demo) commands=(demo) ;;
    --test) commands=(test) ;;
    --bin)
        bin=${2-}
        commands=(demo)
        shift
        ;;
    --shell) commands=(shell) ;;
    --chroot) chroot=yes ;;
    --rust)
        rust=${2-}
        shift
        ;;
    --folder)
        folder=${2-}
        shift
        ;;
    --no-share) share=no ;;
    --no-install) install=no ;;
    --inside)
        inside=yes
        inside_folder=${2-}
        shift
        ;;
    --help | -h)
        usage
        exit 0
        ;;
    --)
        shift
        test_options=("$@")
        break
        ;;
    -*) refuse "there is no option $1" ;;
    *) machines+=("$1") ;;
    esac
    [ $# -gt 0 ] || refuse "the last option lacks its value"
    shift
done
case $account in
root | user) ;;
*) refuse "--as takes root or user" ;;
esac
if [ -n "$bin" ] && ! { [ -x "$bin/av-agent" ] && [ -x "$bin/av-backend" ]; }; then
    refuse "$bin has no av-agent and av-backend"
fi
[ ${#machines[@]} -gt 0 ] || machines=(trixie bookworm-rustup bookworm-web)
for machine in "${machines[@]}"; do
    case $machine in
    */* | .* | '') refuse "there is no machine $machine" ;;
    esac
done

cannot() {
    complain "$@"
    exit 77
}

# ------------------------------------------------- outside the namespaces

missing_fresh_packages() {
    command -v debootstrap >/dev/null || say debootstrap
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || say debian-archive-keyring
    command -v git >/dev/null || say git
    command -v unshare >/dev/null || say util-linux
    command -v mount >/dev/null || say mount
}

if [ "$inside" = no ]; then
    [ "$(id -u)" -eq 0 ] || cannot "A fresh machine in a folder takes root."
    if [ "$install" = yes ]; then
        (install_missing "$root" missing_fresh_packages) || cannot "debootstrap cannot be had."
    fi
    lacking=$(missing_fresh_packages | tr '\n' ' ')
    [ -z "$lacking" ] || cannot "Missing packages: $lacking"
    namespaces=(--mount --pid --ipc --uts --fork --kill-child --mount-proc)
    unshare "${namespaces[@]}" true 2>/dev/null || cannot "This system lets even root make no namespaces."
    git -C "$root" rev-parse --verify --quiet HEAD >/dev/null ||
        cannot "$root is no clone: there is no commit to try."
    if [ -n "$(git -C "$root" status --porcelain --untracked-files=no)" ]; then
        complain "The last commit is tried, without the changes that are not committed."
    fi

    made=
    if [ -n "$folder" ]; then
        mkdir -p "$folder"
        folder=$(realpath "$folder")
    else
        made=$(mktemp -d /var/tmp/av-fresh-XXXXXX)
        folder=$made
        # The user of the machine must get through.
        chmod 755 "$made"
    fi
    run=
    # Every mount is inside the namespaces, and goes with their last process.
    # shellcheck disable=SC2317  # called by the trap
    stop() {
        local status=$?
        trap '' INT TERM HUP
        if [ -n "$run" ]; then
            kill -KILL "$run" 2>/dev/null || true
            wait "$run" 2>/dev/null || true
        fi
        [ -z "$made" ] || rm -rf --one-file-system "$made"
        exit "$status"
    }
    trap stop EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    # However this process dies, the namespaces die with it.
    input=/dev/null
    [ "${commands[0]}" != shell ] || input=/dev/stdin
    setpriv --pdeathsig KILL unshare "${namespaces[@]}" -- \
        "$root/scripts/fresh.sh" --inside "$folder" "${arguments[@]}" <"$input" &
    run=$!
    status=0
    wait "$run" || status=$?
    run=
    exit "$status"
fi

# -------------------------------------------------- inside the namespaces

trap - INT TERM HUP
folder=$inside_folder

# The package of the release that is missing is a reason to end with 77; what
# fails after that is a fault.
bootstrap() {
    local suite=$1 into=$2
    say "Making a minimal $suite with debootstrap"
    rm -rf --one-file-system "$into"
    mkdir -p "$into"
    if ! debootstrap --variant=minbase "$suite" "$into" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$into.log" 2>&1; then
        tail -n 5 "$into.log" >&2
        rm -rf --one-file-system "$into"
        cannot "debootstrap cannot make $suite."
    fi
    rm -f "$into.log"
    # debootstrap writes which mirror it took. Security updates are beside it.
    local sources=$into/etc/apt/sources.list mirror
    mirror=$(awk '$1 == "deb" { print $2; exit }' "$sources")
    mirror=${mirror%/}
    case $suite in
    sid | unstable) ;;
    *)
        say "deb $mirror $suite-updates main" >>"$sources"
        say "deb ${DEBIAN_SECURITY_MIRROR:-$mirror-security} $suite-security main" >>"$sources"
        ;;
    esac
    touch "$into/.bootstrapped"
}

# Devices, /proc and the like, which are this namespace's own.
mount_all() {
    local on=$1 device
    mount --bind "$on" "$on"
    mount -t proc proc "$on/proc"
    mount -t sysfs -o ro sysfs "$on/sys"
    mount -t tmpfs -o mode=755 tmpfs "$on/dev"
    for device in null zero full random urandom tty; do
        touch "$on/dev/$device"
        mount --bind "/dev/$device" "$on/dev/$device"
    done
    mkdir "$on/dev/pts" "$on/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$on/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$on/dev/shm"
    ln -s pts/ptmx "$on/dev/ptmx"
    ln -s /proc/self/fd "$on/dev/fd"
    ln -s fd/0 "$on/dev/stdin"
    ln -s fd/1 "$on/dev/stdout"
    ln -s fd/2 "$on/dev/stderr"
    mount -t tmpfs -o mode=755 tmpfs "$on/run"
    mkdir -m 1777 "$on/run/lock"
}

# What the machine's network needs of this one: names, proxies, authorities.
join_network() {
    local on=$1 setting value
    rm -f "$on/etc/resolv.conf"
    cat /etc/resolv.conf >"$on/etc/resolv.conf"
    # Many systems name IPv6's address first.
    cat >"$on/etc/hosts" <<HOSTS
::1 localhost ip6-localhost ip6-loopback
127.0.0.1 localhost
127.0.1.1 $(uname -n)
HOSTS
    mkdir -p "$on/etc/apt/apt.conf.d"
    for setting in Acquire::http::Proxy Acquire::https::Proxy Acquire::Check-Valid-Until Acquire::Check-Date; do
        value=$(apt-config dump --format '%v' "$setting" 2>/dev/null) || true
        [ -z "$value" ] || printf '%s "%s";\n' "$setting" "$value"
    done >"$on/etc/apt/apt.conf.d/00host"
    mkdir -p "$on/usr/local/share/ca-certificates"
    find /usr/local/share/ca-certificates -name '*.crt' \
        -exec cp -L {} "$on/usr/local/share/ca-certificates/" \; 2>/dev/null || true
}

# An authority of this machine's own opens no connection without being known.
copy_authorities() {
    local on=$1 bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
    [ ! -r "$bundle" ] || cp -L "$bundle" "$on/etc/ssl/certs/ca-certificates.crt"
}

# in_machine FOLDER COMMAND...: as root, with the environment of a log-in.
in_machine() {
    local on=$1 name
    shift
    local -a environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        HOME=/root USER=root LOGNAME=root SHELL=/bin/bash "TERM=${TERM:-dumb}" LANG=C.UTF-8)
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY CARGO_BUILD_JOBS CI; do
        [ -z "${!name-}" ] || environment+=("$name=${!name}")
    done
    if [ "$chroot" = yes ]; then
        env -i "${environment[@]}" chroot "$on" "$@"
    else
        # A mount namespace of the command's own: the folder becomes its root,
        # and what is mounted elsewhere is not seen.
        # shellcheck disable=SC2016  # expanded by the inner shell
        env -i "${environment[@]}" unshare --mount -- bash -c '
            set -eu
            cd "$1"
            shift
            mkdir -p .old
            pivot_root . .old
            umount -l /.old
            exec "$@"' bash "$on" "$@"
    fi
}

# The same as the account that was chosen.
as_account() {
    local on=$1
    shift
    if [ "$account" = root ]; then
        in_machine "$on" "$@"
    else
        in_machine "$on" setpriv --reuid=1000 --regid=1000 --init-groups -- \
            env HOME=/home/user USER=user LOGNAME=user PATH=/usr/local/bin:/usr/bin:/bin "$@"
    fi
}

# The compiler of the machine.
get_compiler() {
    local on=$1 kind=$2
    case $kind in
    cargo) apt_install "$on" cargo ;;
    web) apt_install "$on" cargo-web rustc-web ;;
    rustup)
        # shellcheck disable=SC2016  # expanded there
        as_account "$on" sh -c 'test -x "$HOME/.cargo/bin/cargo"' && return 0
        # As rustup's own page says; where that is out of reach, the program
        # that is here does: under this name it installs itself.
        in_machine "$on" curl -sSfL --proto '=https' -o /usr/local/bin/rustup-init https://sh.rustup.rs ||
            cp -L "$(command -v rustup)" "$on/usr/local/bin/rustup-init" ||
            cannot "rustup cannot be had."
        chmod 755 "$on/usr/local/bin/rustup-init"
        as_account "$on" rustup-init -q -y --profile minimal --default-toolchain "$rust" >"$on/var/log/rustup.log" 2>&1 || {
            tail -n 5 "$on/var/log/rustup.log" >&2
            cannot "rustup cannot install Rust $rust."
        }
        ;;
    esac
    # shellcheck disable=SC2016
    as_account "$on" sh -c 'PATH=$PATH:$HOME/.cargo/bin cargo --version'
}

apt_install() {
    local on=$1
    shift
    in_machine "$on" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" \
        >"$on/var/log/fresh.log" 2>&1 || {
        tail -n 5 "$on/var/log/fresh.log" >&2
        cannot "apt-get cannot install $*."
    }
}

set_up() {
    local on=$1 kind=$2 home=/root
    in_machine "$on" apt-get update -q >"$on/var/log/fresh.log" 2>&1 || {
        tail -n 5 "$on/var/log/fresh.log" >&2
        cannot "The package lists cannot be fetched."
    }
    # What a clone takes: git, and the authorities for https.
    local -a packages=(ca-certificates git)
    [ "$account" = root ] || packages+=(sudo)
    [ "$kind" != rustup ] || packages+=(curl)
    apt_install "$on" "${packages[@]}"
    copy_authorities "$on"
    if [ "$account" = user ]; then
        home=/home/user
        in_machine "$on" id user >/dev/null 2>&1 || in_machine "$on" useradd --create-home --shell /bin/bash --uid 1000 user
        say 'user ALL=(ALL) NOPASSWD: ALL' >"$on/etc/sudoers.d/user"
        chmod 440 "$on/etc/sudoers.d/user"
    fi
    local shared=${CARGO_HOME:-$HOME/.cargo}/registry
    if [ "$share" = yes ] && [ -d "$shared/cache" ] && ! [ -d "$on$home/.cargo/registry" ]; then
        mkdir -p "$on$home/.cargo/registry"
        cp -a "$shared/cache" "$shared/index" "$on$home/.cargo/registry/" || true
    fi
    # A clone that is fresh, with what an earlier run of a kept machine built.
    local clone=$on$home/av-monitoring built=
    if [ -d "$clone/target" ]; then
        built=$on$home/target
        rm -rf "$built"
        mv "$clone/target" "$built"
    fi
    rm -rf "$clone"
    git clone -q --no-hardlinks "$root" "$clone"
    git -C "$clone" checkout -q --detach "$(git -C "$root" rev-parse HEAD)"
    [ -z "$built" ] || mv "$built" "$clone/target"
    [ "$account" = root ] || chown -R 1000:1000 "$on$home"
    if [ -z "$bin" ]; then
        get_compiler "$on" "$kind"
    else
        mkdir -p "$on/opt/av-monitoring"
        cp -L "$bin/av-agent" "$bin/av-backend" "$on/opt/av-monitoring/"
    fi
}

demo_options=()
[ -z "$bin" ] || demo_options=(--bin /opt/av-monitoring)
passed=0
failures=0
wrong=()

# run_there MACHINE FOLDER COMMAND...: in the clone, each line with the name of
# the machine before it.
run_there() {
    local machine=$1 on=$2 status=0 log p f
    log=$folder/$machine.log
    shift 2
    say "── $machine, as $account: $*"
    # shellcheck disable=SC2016
    as_account "$on" bash -c 'cd "$HOME/av-monitoring" && exec "$@"' bash "$@" 2>&1 |
        tee "$log" | sed -u "s/^/$machine: /" || status=$?
    if [ "$status" -ne 0 ]; then
        wrong+=("$machine: $*")
    fi
    read -r p f < <(awk '/^[0-9]+ passed, [0-9]+ failed$/ { p = $1; f = $3 } END { print p + 0, f + 0 }' "$log")
    passed=$((passed + p))
    failures=$((failures + f))
}

# Makes the machine, or takes it up again.
make_machine() {
    local machine=$1 on=$2 suite kind
    suite=${machine%%-*}
    case $machine in
    *-rustup) kind=rustup ;;
    *-web) kind=web ;;
    # The cargo of bookworm is older than what is promised.
    bookworm) kind=rustup ;;
    *-*) cannot "There is no machine $machine." ;;
    *) kind=cargo ;;
    esac
    [ -e "$on/.bootstrapped" ] || bootstrap "$suite" "$on"
    mount_all "$on"
    join_network "$on"
    set_up "$on" "$kind"
}

not_made=()
for machine in "${machines[@]}"; do
    on=$folder/$machine
    began=$SECONDS
    # A condition would switch `set -e` off in it.
    set +e
    (
        set -e
        make_machine "$machine" "$on"
    )
    status=$?
    set -e
    say "   $((SECONDS - began)) s"
    if [ "$status" -ne 0 ]; then
        if [ "$status" -eq 77 ]; then not_made+=("$machine"); else wrong+=("$machine"); fi
        continue
    fi
    for command in "${commands[@]}"; do
        began=$SECONDS
        case $command in
        demo) run_there "$machine" "$on" ./demo.sh --check "${demo_options[@]}" ;;
        test) run_there "$machine" "$on" ./test.sh "${test_options[@]}" ;;
        shell)
            as_account "$on" bash -l || true
            exit 0
            ;;
        esac
        say "   $((SECONDS - began)) s"
    done
done

[ ${#not_made[@]} -eq 0 ] || say "cannot be made here: ${not_made[*]}"
if [ ${#wrong[@]} -gt 0 ]; then
    printf -v list '%s; ' "${wrong[@]}"
    say "✗ failed: ${list%; }"
    [ "$failures" -gt 0 ] || failures=${#wrong[@]}
fi
say "fresh: $passed passed, $failures failed"
[ ${#wrong[@]} -eq 0 ] && [ "$failures" -eq 0 ] || exit 1
[ ${#not_made[@]} -eq 0 ] || exit 77
