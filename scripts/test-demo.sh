#!/bin/bash
# Tries what the demonstration says where something is missing, too old, full
# or taken, all before anything is installed or built; then lets it check
# itself with programs that are built already, on a PATH without cargo.
#
#   scripts/test-demo.sh            all of it
#   scripts/test-demo.sh --quick    without the last part
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

quick=no
case ${1-} in
--help | -h)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
    ;;
--quick) quick=yes ;;
'') ;;
*) die "test-demo.sh: there is no option $1" ;;
esac

folder=$(realpath "$(mktemp -d)")
holder=
finish() {
    [ -z "$holder" ] || kill "$holder" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT
status=0
tried=0

# A program of that name in a folder, which runs these lines.
program() {
    mkdir -p "$(dirname "$1")"
    { printf '#!/bin/sh\n' && cat; } >"$1"
    chmod 755 "$1"
}

# refuses WHAT TEXT... -- COMMAND...: the command fails, and says each text.
refuses() {
    local what=$1 said code=0 text
    local -a texts=()
    shift
    while [ "$1" != -- ]; do
        texts+=("$1")
        shift
    done
    shift
    tried=$((tried + 1))
    said=$("$@" 2>&1 </dev/null) || code=$?
    [ "$code" -ne 0 ] || wrong "$what: it is not refused" "$said"
    for text in "${texts[@]}"; do
        case $said in
        *"$text"*) ;;
        *) wrong "$what: it does not say: $text" "$said" ;;
        esac
    done
    if [ -e "$folder/installed" ]; then
        wrong "$what: something was installed: $(cat "$folder/installed")" "$said"
        rm "$folder/installed"
    fi
}

wrong() {
    complain "✗ $1" "$2"
    status=1
}

# ---------------------------------------------- a machine of our own making

# The programs that the scripts themselves call: a PATH without cargo, apt-get,
# psql and sudo. lib.sh adds /usr/sbin, where snmpd is.
plain=$folder/plain
mkdir "$plain"
for name in bash sh env awk cat chmod chown cp cut date df dirname du find flock getent grep head id mkdir mktemp \
    mv od realpath rm sed setpriv setsid sha256sum sleep sort stat tail test touch tr uname xargs; do
    ln -s "$(type -P "$name")" "$plain/$name"
done
# The interpreter itself: what is on the PATH may be a script that looks for it.
ln -s "$(python3 -c 'import sys; print(sys.executable)')" "$plain/python3"
printf 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n' >"$folder/trixie"
printf 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n' >"$folder/bookworm"
printf 'ID=fedora\nVERSION_ID=42\n' >"$folder/fedora"
# A call of these is an installation.
for name in apt-get dpkg sudo; do
    program "$folder/apt/$name" <<SCRIPT
echo "$name \$*" >>"$folder/installed"
exit 1
SCRIPT
done
program "$folder/old/cargo" <<<'echo "cargo 1.70.0 (7fe40dc8c 2023-04-27)"'
program "$folder/old/rustc" <<<'echo "rustc 1.70.0"'
program "$folder/user/id" <<<'echo 1000'
program "$folder/programs/av-agent" <<<'echo av-agent 9.9.9'
program "$folder/programs/av-backend" <<<'echo av-backend 9.9.9'
program "$folder/foreign/av-agent" <<<'echo "cannot execute" >&2; exit 126'
cp "$folder/programs/av-backend" "$folder/foreign/"
mkdir "$folder/half"
cp "$folder/programs/av-agent" "$folder/half/"

# on PATH SYSTEM COMMAND...: with a home that has no cargo either.
on() { env -u CARGO_HOME -u RUSTC -u SUDO_USER PATH="$1" HOME="$folder" AV_OS_RELEASE="$folder/$2" "${@:3}"; }
demo=(env DEMO_DIR="$folder/data" "$root/demo.sh")

# -------------------------------------------------------------------- Rust

old=$folder/old:$folder/apt:$plain
refuses 'cargo 1.70 on trixie' 'Rust 1.85' "$folder/old/cargo is version 1.70.0" 'apt install cargo' rustup.rs -- \
    on "$old" trixie "${demo[@]}"
refuses 'cargo 1.70 on bookworm' 'apt install cargo-web rustc-web' -- on "$old" bookworm "${demo[@]}" --check
refuses 'cargo 1.70 on another system' 'https://sh.rustup.rs' -- on "$old" fedora "${demo[@]}"
refuses 'the tests with cargo 1.70' 'apt install cargo' -- on "$old" trixie "$root/test.sh"
refuses 'no cargo and no programs' 'there is no cargo here' 'apt install cargo' './demo.sh --bin FOLDER' -- \
    on "$folder/apt:$plain" trixie "${demo[@]}"
refuses 'a user, who needs sudo' 'sudo apt install cargo' -- on "$folder/user:$old" trixie "${demo[@]}"

# ------------------------------------------------------------- what is lacking

programs=(--bin "$folder/programs")
refuses 'no Debian' "PostgreSQL's client (psql)" -- on "$plain" fedora "${demo[@]}" "${programs[@]}"
program "$folder/both/apt-get" <"$folder/apt/apt-get"
program "$folder/both/dpkg" <"$folder/apt/dpkg"
refuses 'a user without sudo' 'There is no sudo here. As root:' postgresql-client -- \
    on "$folder/user:$folder/both:$plain" trixie "${demo[@]}" "${programs[@]}"
refuses 'half of the programs' 'There is no av-backend' -- "${demo[@]}" --bin "$folder/half"
refuses 'programs of another machine' 'av-agent does not run here: cannot execute' -- \
    "${demo[@]}" --bin "$folder/foreign"
refuses 'no folder' 'there is no such folder' -- "${demo[@]}" --bin "$folder/none"

# Nothing of the tests alone is in the demonstration's list.
for name in nginx-light caddy strace faketime chromium curl jq openssl iproute2 gcc; do
    wanted=$(PATH=$folder/both:$plain missing_demo_packages)
    case $wanted in *"$name"*) wrong "the demonstration wants $name" "$wanted" ;; esac
done

# ----------------------------------------------------------- disk and ports

need_installed missing_demo_packages
python3 - "$folder/held" <<'PYTHON' &
import signal, socket, sys
held = [socket.socket() for _ in range(2)]
for s in held:
    s.bind(("127.0.0.1", 0))
    s.listen()
with open(sys.argv[1] + ".new", "w") as file:
    print(*(s.getsockname()[1] for s in held), file=file)
import os
os.rename(sys.argv[1] + ".new", sys.argv[1])
signal.pause()
PYTHON
holder=$!
until [ -s "$folder/held" ]; do
    kill -0 "$holder" || die 'the holder of ports has ended'
    sleep 0.1
done
read -r taken also_taken <"$folder/held"
read -r one two three four <<<"$(python3 "$root/scripts/demo/ports.py" free 4)"
ports=(env DEMO_NET="127.$((RANDOM % 200 + 20)).$((RANDOM % 250 + 1))" DEMO_BACKEND_PORT="$one" DEMO_PAGE_PORT="$two"
    DEMO_PG_PORT="$three" DEMO_PJLINK_PORT="$four")
refuses 'taken ports' "port $taken of 127.0.0.1 is taken" 'DEMO_BACKEND_PORT=' "port $also_taken" 'DEMO_PG_PORT=' -- \
    "${ports[@]}" DEMO_BACKEND_PORT="$taken" DEMO_PG_PORT="$also_taken" "${demo[@]}" "${programs[@]}"
refuses 'no port' 'DEMO_PAGE_PORT=80o80 is no port' -- \
    "${ports[@]}" DEMO_PAGE_PORT=80o80 "${demo[@]}" "${programs[@]}"
refuses 'a full disk' 'Too little disk space' 'MB are free there' DEMO_DIR -- \
    "${ports[@]}" DEMO_DATA_MB=900000000 "${demo[@]}" "${programs[@]}"
if cargo_works; then
    refuses 'no room to build' 'Too little disk space: the build' CARGO_TARGET_DIR -- \
        "${ports[@]}" CARGO_TARGET_DIR="$folder/target" DEMO_BUILD_MB=900000000 "${demo[@]}"
fi
exec 8>"$folder/data/lock"
flock 8
refuses 'a second demonstration' 'runs already' -- "${ports[@]}" "${demo[@]}" "${programs[@]}"
exec 8>&-

# ----------------------------------------------------------------- progress

# It goes on once it was read what it builds: that needs two rounds of words.
program "$folder/fake/cargo" <<SCRIPT
printf '   Compiling serde v1.0.0\n    Building [==>    ] 12/34: serde, jiff\r' >&2
until grep -q '12 of 34' "$folder/progress"; do sleep 0.2; done
printf '\033[Kwarning: unused import\n' >&2
exit 101
SCRIPT
tried=$((tried + 1))
code=0
: >"$folder/progress"
python3 "$root/scripts/cargo_progress.py" "$folder/fake/cargo" build >"$folder/progress" 2>"$folder/complaints" || code=$?
[ "$code" -eq 101 ] || wrong "cargo's exit code becomes $code" ''
grep -q 'unused import' "$folder/complaints" || wrong 'a warning is lost' "$(cat "$folder/complaints")"
if grep -q Compiling "$folder/complaints"; then wrong 'every library is named' "$(cat "$folder/complaints")"; fi
if grep -q $'[\033\r]' "$folder/progress"; then wrong 'there are escape codes without a terminal' "$(cat -v "$folder/progress")"; fi

# ------------------------------------------------------------------ for real

if [ "$quick" = no ]; then
    need_cargo
    cd "$root"
    target=$(cargo metadata --format-version 1 --no-deps --locked |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    python3 scripts/cargo_progress.py cargo build --locked -p av-agent -p av-backend --bins
    cp "$target/debug/av-agent" "$target/debug/av-backend" "$folder/programs/"
    for name in psql postgres initdb; do
        if has "$name"; then ln -s "$(command -v "$name")" "$plain/$name"; fi
    done
    tried=$((tried + 1))
    # Installed packages are found on the PATH, without cargo and without --bin.
    on "$folder/programs:$plain" bookworm ./demo.sh --check </dev/null || wrong 'the demonstration fails' ''
fi

[ "$status" -eq 0 ] || exit 1
say "The demonstration says what it should, in $tried cases."
