# shellcheck shell=bash
# Which rustfmt and clippy judge the code. Part of scripts/lib.sh, which sources
# it and says `rust_version`: only the tools of that version can make a test
# fail, since each new compiler finds something new in old code.
# shellcheck disable=SC2154

# The command that runs cargo with the tools, and whether they are those of
# `rust_version` (yes or no). Set by `find_lints`.
lint_cargo=()
lints_judge=no

has_lints() { "$@" fmt --version >/dev/null 2>&1 && "$@" clippy --version >/dev/null 2>&1; }

is_pinned() {
    case $1 in
    "$rust_version" | "$rust_version".*) true ;;
    *) false ;;
    esac
}

# Prints the Debian packages with rustfmt and clippy of the cargo that runs;
# nothing where that is none of Debian's.
lint_packages() {
    local owner
    has_apt || return 0
    owner=$(dpkg -S "$(readlink -f "$(command -v cargo)")" 2>/dev/null | cut -d: -f1) || true
    case $owner in
    cargo | cargo-[0-9]*) say "rustfmt rust-clippy" ;;
    cargo-web) say "rustfmt-web rust-web-clippy" ;;
    esac
}

# Prints those of them that are missing, one a line.
missing_lint_packages() {
    local -a of_lints=()
    read -r -a of_lints < <(lint_packages) || true
    [ ${#of_lints[@]} -eq 0 ] || has_lints cargo || printf '%s\n' "${of_lints[@]}"
}

# Sets `lint_cargo` and `lints_judge`. `install` (yes or no) says whether what
# is missing may be installed. Fails, with a word, where no tools can be had.
find_lints() {
    local root=$1 install=$2
    lint_cargo=(cargo)
    lints_judge=no
    if is_pinned "$(version_of "${RUSTC:-rustc}")"; then
        lints_judge=yes
    elif has rustup; then
        lint_cargo=(rustup run "$rust_version" cargo)
        lints_judge=yes
    fi
    has_lints "${lint_cargo[@]}" && return 0
    if [ "$install" = yes ]; then
        if has rustup; then
            # The toolchain and the tools, or the tools alone.
            say "Getting rustfmt and clippy of Rust $rust_version from rustup"
            rustup -q toolchain install "$rust_version" --profile minimal --no-self-update \
                -c rustfmt -c clippy >/dev/null || true
        else
            # In a subshell, which may die: the tests go on without.
            (install_missing "$root" missing_lint_packages) || true
        fi
    fi
    has_lints "${lint_cargo[@]}" && return 0
    # Those of another compiler are better than none.
    lint_cargo=(cargo)
    lints_judge=no
    has_lints cargo && return 0
    say "Without cargo fmt and cargo clippy: neither is installed."
    return 1
}

# lint WHAT COMMAND...: fails where the tools judge, and tells where they do not.
lint() {
    local what=$1
    shift
    "$@" && return 0
    [ "$lints_judge" = no ] || return 1
    say "   $what of Rust $(version_of "${RUSTC:-rustc}") finds this. Only what that of Rust $rust_version finds is a failure."
}
