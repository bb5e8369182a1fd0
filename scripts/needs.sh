# shellcheck shell=bash
# What this system lacks: programs and their packages, and a Rust that is new
# enough. Part of scripts/lib.sh, which sources it and says `rust_version`.
# shellcheck disable=SC2154

has_apt() { command -v apt-get >/dev/null && command -v dpkg >/dev/null; }

# lack PACKAGE PROGRAM: prints the name under which what is missing can be
# installed: Debian's package, or elsewhere the program.
lack() { if has_apt; then say "$1"; else say "$2"; fi; }

# Dies where the system is none that any of this runs on.
need_linux() {
    local device
    [ "$(uname -s)" = Linux ] || die "This runs on Linux only, not on $(uname -s). A virtual machine or a container with Debian will do."
    for device in /dev/null /dev/urandom; do
        [ -c "$device" ] || die "There is no $device, as in a bare chroot. As root, from outside: mount --bind /dev FOLDER/dev"
    done
    [ -d /proc/self/fd ] || die "There is no /proc, as in a bare chroot. As root, inside: mount -t proc proc /proc"
    [ -e /dev/fd ] || die "There is no /dev/fd, as in a bare chroot. As root: ln -s /proc/self/fd /dev/fd"
}

has() { command -v "$1" >/dev/null; }

# Each of these prints what is missing for one purpose, one name a line.

# A compiler for the C in some libraries, and the C library's headers.
missing_build_packages() {
    has cc || lack gcc 'a C compiler (cc)'
    [ -e /usr/include/stdlib.h ] || ! has_apt || say libc6-dev
}

missing_database_packages() {
    postgres_bin >/dev/null || lack postgresql "PostgreSQL's server (postgres, initdb)"
    has psql || lack postgresql-client "PostgreSQL's client (psql)"
    { has setpriv && has flock; } || lack util-linux "util-linux (setpriv, flock)"
}

# What the demonstration needs where its programs are built already.
missing_demo_packages() {
    missing_database_packages
    has snmpd || lack snmpd "net-snmp's agent (snmpd)"
    has python3 || lack python3 python3
}

missing_demo_build_packages() {
    missing_demo_packages
    missing_build_packages
}

missing_test_packages() {
    missing_demo_build_packages
    has ip || lack iproute2 'iproute2 (ip)'
    # A slow disk and a clock that is set.
    has strace || lack strace strace
    has faketime || lack faketime faketime
    # The proxies whose configurations are tested.
    has nginx || lack nginx-light nginx
    has caddy || lack caddy caddy
    # What the guides' commands need.
    has curl || lack curl curl
    has jq || lack jq jq
    has openssl || lack openssl openssl
}

# The same for the tests of the web interface.
missing_web_packages() {
    has chromium || lack chromium chromium
    has node || lack nodejs 'Node.js (node)'
    has npm || lack npm npm
}

# And for building the Debian packages.
missing_deb_packages() {
    has readelf || lack binutils 'binutils (readelf)'
}

# For the apt repository of a release.
missing_release_packages() {
    has reprepro || lack reprepro reprepro
    has gpg || lack gpg gpg
}

# And for images, where no container engine is.
missing_image_packages() {
    has buildah || lack buildah buildah
}

# Prints names on one line, a comma between them.
listed() {
    local list
    printf -v list '%s, ' "$@"
    say "${list%, }"
}

# Installs what is missing, as root or through sudo: what
# `missing_test_packages` prints, or the function that is named.
install_missing() {
    local root=$1 missing=${2:-missing_test_packages}
    local -a absent=() as_root=()
    mapfile -t absent < <("$missing")
    [ ${#absent[@]} -gt 0 ] || return 0
    has_apt || die "Missing on this system: $(listed "${absent[@]}")." \
        "Only on Debian and its like are they installed from here. Install them, then start again."
    local command="$root/scripts/install-packages.sh ${absent[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        has sudo || die "Missing: $(listed "${absent[@]}"). There is no sudo here. As root: $command"
        say "Missing: $(listed "${absent[@]}"). They are installed through sudo."
        as_root=(sudo)
        # Without a terminal a password cannot be typed.
        [ -t 0 ] || as_root=(sudo -n)
    fi
    "${as_root[@]}" "$root/scripts/install-packages.sh" "${absent[@]}" ||
        die "Not installed: $(listed "${absent[@]}"). As root: $command"
    mapfile -t absent < <("$missing")
    [ ${#absent[@]} -eq 0 ] || die "Still missing after the installation: $(listed "${absent[@]}")"
}

# Dies where something is missing: for who wants nothing installed.
need_installed() {
    local missing
    local -a absent=()
    for missing in "$@"; do
        mapfile -t -O "${#absent[@]}" absent < <("$missing")
    done
    [ ${#absent[@]} -eq 0 ] || die "Missing: $(listed "${absent[@]}")"
}

# -------------------------------------------------------------------- Rust

# The version that `PROGRAM --version` says; empty where it does not run.
version_of() { "$1" --version 2>/dev/null | awk 'NR == 1 { print $2 }'; }

# Whether a version is that of the oldest Rust promised, or newer.
new_enough() {
    [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$rust_version" "$1" | sort -V | head -n 1)" = "$rust_version" ]
}

cargo_works() {
    new_enough "$(version_of cargo)" && new_enough "$(version_of "${RUSTC:-rustc}")"
}

# Prints one value of the system's description of itself.
os_release() {
    # A subshell: the file sets variables.
    (
        # shellcheck source=/dev/null
        . "${AV_OS_RELEASE:-/etc/os-release}" 2>/dev/null || true
        case $1 in
        id) say "${ID-}" ;;
        version) say "${VERSION_ID-}" ;;
        codename) say "${VERSION_CODENAME-}" ;;
        esac
    )
}

# Prints Debian's packages with a Rust that is new enough; nothing where this
# Debian has none.
debian_cargo() {
    case $(os_release id) in
    debian | raspbian) ;;
    *) return 0 ;;
    esac
    case $(os_release version) in
    # Testing and unstable say no number.
    '' | 1[3-9]* | [2-9][0-9]*) say cargo ;;
    12*) say cargo-web rustc-web ;;
    esac
}

# Says how to get a Rust that is new enough on this system.
how_to_get_rust() {
    local packages sudo='' home=''
    packages=$(debian_cargo)
    if [ -n "${SUDO_USER-}" ] && [ "$(id -u)" -eq 0 ]; then
        home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
        if [ -x "$home/.cargo/bin/cargo" ]; then
            say "$SUDO_USER has a cargo of its own: start this as $SUDO_USER, without sudo. It calls sudo by itself."
            return 0
        fi
    fi
    if has rustup; then
        say "  rustup update stable && rustup default stable"
        return 0
    fi
    if [ -n "$packages" ]; then
        if [ "$(id -u)" -ne 0 ]; then
            if has sudo; then sudo='sudo '; else say "As root:"; fi
        fi
        say "  ${sudo}apt update && ${sudo}apt install $packages"
        say "or rustup, from https://rustup.rs:"
    else
        say "By rustup, from https://rustup.rs:"
    fi
    say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
}

what_is_wrong_with() {
    local program=$1 version
    if ! has "$program"; then
        say "there is no $program here"
        return 0
    fi
    version=$(version_of "$program") || true
    if [ -z "$version" ]; then
        say "$(command -v "$program") does not run: $("$program" --version 2>&1 | head -n 1)"
    elif ! new_enough "$version"; then
        say "$(command -v "$program") is version $version"
    fi
}

# Whether there is a cargo that is new enough; rustup's goes onto the PATH where
# another, older one hides it, as in a service or through sudo.
find_cargo() {
    local theirs=${CARGO_HOME:-${HOME-}/.cargo}/bin before=$PATH
    cargo_works && return 0
    [ -x "$theirs/cargo" ] || return 1
    PATH="$theirs:$PATH"
    cargo_works && return 0
    PATH=$before
    return 1
}

# Dies where cargo is missing or too old. Called before anything is installed.
need_cargo() {
    local found
    find_cargo && return 0
    found=$(what_is_wrong_with cargo)
    [ -n "$found" ] || found=$(what_is_wrong_with "${RUSTC:-rustc}")
    complain "Rust $rust_version or newer is needed, and $found. To get it:"
    how_to_get_rust >&2
    exit 1
}
