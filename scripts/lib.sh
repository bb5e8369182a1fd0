# shellcheck shell=bash
# What test.sh and demo.sh share. Sourced, not run.

# snmpd and friends are there, and not on a normal user's PATH; cargo may be
# installed and not on a service's.
PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"
export PATH

say() { printf '%s\n' "$*"; }
complain() { printf '%s\n' "$*" >&2; }
die() {
    complain "$@"
    exit 1
}

# The newest PostgreSQL server's programs: Debian keeps them off the PATH.
postgres_bin() {
    local newest=''
    newest=$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1) || true
    if [ -n "$newest" ]; then
        dirname "$newest"
    elif command -v initdb >/dev/null && command -v postgres >/dev/null; then
        dirname "$(command -v initdb)"
    else
        return 1
    fi
}

# Prints the Debian packages that are missing, one a line.
missing_packages() {
    postgres_bin >/dev/null || say postgresql
    command -v psql >/dev/null || say postgresql-client
    command -v snmpd >/dev/null || say snmpd
    command -v python3 >/dev/null || say python3
    # Some libraries have C in them.
    command -v cc >/dev/null || say gcc
    [ -e /usr/include/stdlib.h ] || say libc6-dev
    command -v ip >/dev/null || say iproute2
    command -v setpriv >/dev/null || say util-linux
    # The proxies whose configurations are tested.
    command -v nginx >/dev/null || say nginx-light
    command -v caddy >/dev/null || say caddy
}

# The same for the tests of the web interface.
missing_web_packages() {
    command -v chromium >/dev/null || say chromium
    command -v node >/dev/null || say nodejs
    command -v npm >/dev/null || say npm
}

# Installs what is missing, as root or through sudo: what `missing_packages`
# prints, or the function that is named.
install_missing() {
    local root=$1 missing=${2:-missing_packages}
    local -a packages=()
    mapfile -t packages < <("$missing")
    [ ${#packages[@]} -gt 0 ] || return 0
    local -a as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "Missing: ${packages[*]}. As root: $root/scripts/install-packages.sh ${packages[*]}"
        as_root=(sudo)
        # Nobody is there to type a password.
        [ -t 0 ] || as_root=(sudo -n)
    fi
    "${as_root[@]}" "$root/scripts/install-packages.sh" "${packages[@]}"
    mapfile -t packages < <("$missing")
    [ ${#packages[@]} -eq 0 ] || die "Still missing after the installation: ${packages[*]}"
}

need_cargo() {
    command -v cargo >/dev/null || die "There is no cargo. Rust 1.85 or newer is needed: https://rustup.rs"
}
