#!/bin/bash
# Builds the images, and starts what compose.yaml describes: every service, from
# the first link to a projector that the backend knows. Takes root, buildah and
# debootstrap, and no container engine.
#
#   scripts/test-containers.sh                 makes a small Debian as the base
#   scripts/test-containers.sh --base FOLDER   takes this one, which stays as it
#                                              is: debootstrap --variant=minbase
#                                              --include=ca-certificates trixie
#   scripts/test-containers.sh --bin FOLDER    takes programs from there instead
#                                              of building them
#   scripts/test-containers.sh --compile       compiles in the images instead, as
#                                              `docker compose up` does, in a
#                                              small Debian with its own Rust.
#                                              Without the optimizer, which would
#                                              take most of the time
#   scripts/test-containers.sh --work FOLDER   keeps there what takes long to
#                                              make, and takes it up again
#
# The images of PostgreSQL and Caddy are Docker's own and cannot be had
# everywhere: Debian's packages take their place here. compose.yaml is held
# against the schema of the compose specification where check-jsonschema can be
# had from PyPI. It ends with 77 where it lacks what it needs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
# shellcheck source=scripts/folders.sh
. "$root/scripts/folders.sh"

base=
bin=
compile=no
kept=
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
    --compile) compile=yes ;;
    --work)
        shift
        kept=$(realpath -m "${1:?a folder}")
        ;;
    *) die "test-containers.sh: there is no option $1" ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || impossible "Building images and namespaces take root."
unshare --net --mount --pid --fork true 2>/dev/null || impossible "No namespaces can be made here."
lacking=()
for program in buildah debootstrap; do
    command -v "$program" >/dev/null || lacking+=("$program")
done
[ ${#lacking[@]} -eq 0 ] || "$root/scripts/install-packages.sh" "${lacking[@]}" || impossible "Missing: ${lacking[*]}"
python3 -c 'import venv' 2>/dev/null || impossible "python3 has no venv."

work=$(realpath "$(mktemp -d)")
[ -n "$kept" ] || kept=$work/kept
mkdir -p "$kept"
chmod 755 "$work" "$kept"
finish() {
    local status=$?
    trap '' INT TERM
    unmount_below "$kept" || status=1
    remove_folder "$work" || status=1
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ------------------------------------------------------------- compose.yaml
python=python3
if ! command -v check-jsonschema >/dev/null || ! python3 -c 'import yaml' 2>/dev/null; then
    python3 -m venv "$kept/venv"
    if "$kept/venv/bin/pip" install --quiet check-jsonschema==0.39.0 pyyaml >"$work/pip.log" 2>&1; then
        python=$kept/venv/bin/python
        PATH=$kept/venv/bin:$PATH
    fi
fi
"$python" -c 'import yaml' 2>/dev/null || impossible "python3 has no yaml."
if command -v check-jsonschema >/dev/null; then
    check-jsonschema --builtin-schema vendor.compose-spec "$root/compose.yaml" ||
        die "✗ compose.yaml is not of the compose specification"
    say "compose.yaml is of the compose specification"
else
    complain "check-jsonschema cannot be had: compose.yaml is not held against its schema"
fi

# ----------------------------------------------------------------- programs
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
# What an image is made of: the sources, or programs with what starts them.
context=$root
if [ "$compile" = no ]; then
    context=$work/context
    mkdir -p "$context/target/container" "$context/scripts"
    if [ -z "$bin" ]; then
        need_cargo
        (cd "$root" && cargo build --locked -p av-agent -p av-backend && cargo build --locked -p av-proto-tests --bin pjlink-sim)
        bin=${CARGO_TARGET_DIR:-$root/target}/debug
    fi
    for program in av-agent av-backend pjlink-sim; do
        install -m 755 "$bin/$program" "$context/target/container/"
    done
    # The agent's image sees no simulator, and no backend.
    cp -r "$root/scripts/container" "$context/scripts/"
    mkdir "$context/agent" "$context/backend"
    cp "$root/agent/Containerfile" "$context/agent/"
    cp "$root/backend/Containerfile" "$context/backend/"
fi

# ------------------------------------------------------------------- images
if [ -z "$base" ]; then
    base=$kept/base
    if ! [ -e "$kept/base.whole" ]; then
        make_debian "$base" trixie ca-certificates
        touch "$kept/base.whole"
    fi
fi
storage() { buildah --root "$kept/storage" --runroot "$work/run" --storage-driver "$driver" "$@"; }
driver=overlay
storage images >/dev/null 2>&1 || driver=vfs
storage rm --all >/dev/null 2>&1 || true

# import NAME FOLDER [BUILDAH-CONFIG-OPTIONS...]: makes an image of a Debian in a
# folder.
import() {
    local name=$1 folder=$2 container
    shift 2
    ! storage inspect --type image "localhost/$name" >/dev/null 2>&1 || return 0
    container=$(storage from scratch)
    storage add --quiet "$container" "$folder" / >/dev/null
    [ $# -eq 0 ] || storage config "$@" "$container"
    storage commit --quiet --rm "$container" "localhost/$name" >/dev/null
}
import base "$base"
arguments=(--build-arg BASE=localhost/base)
if [ "$compile" = yes ]; then
    if ! [ -e "$kept/builder.whole" ]; then
        make_debian "$kept/builder" trixie ca-certificates cargo gcc libc6-dev
        # The authorities that this machine believes in, for crates.io.
        cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$kept/builder/etc/ssl/certs/ca-certificates.crt"
        touch "$kept/builder.whole"
    fi
    import builder "$kept/builder" --env CARGO_PROFILE_RELEASE_OPT_LEVEL=1 --env CARGO_PROFILE_RELEASE_LTO=off \
        --env CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
    arguments+=(--build-arg BUILDER=localhost/builder)
fi

# build NAME FILE [--target TARGET]
build() {
    local name=$1 file=$2 container mounted
    shift 2
    (cd "$context" && storage bud --quiet --isolation chroot --format docker "${arguments[@]}" \
        --timestamp 0 "$@" --tag "localhost/$name" --file "$file" .) >"$work/$name.build.log" 2>&1 ||
        die "✗ the image $name is not built: $(tail -n 15 "$work/$name.build.log")"
    container=$(storage from "localhost/$name")
    mounted=$(storage mount "$container")
    storage inspect --type image --format '{{.Docker.Config | json}}' "localhost/$name" >"$work/$name.json" 2>/dev/null ||
        storage inspect --type image "localhost/$name" | python3 -c 'import json, sys
json.dump(json.load(sys.stdin)["Docker"]["config"], sys.stdout)' >"$work/$name.json"
    say "the image $name is built"
    printf '%s\n' "$mounted" >"$work/$name.root"
}
if [ "$compile" = yes ]; then
    # The targets that compose.yaml asks for.
    build av-backend backend/Containerfile
    build av-agent agent/Containerfile
    build av-equipment agent/Containerfile --target equipment
else
    build av-backend backend/Containerfile --target packed
    build av-agent agent/Containerfile --target packed
    build av-equipment agent/Containerfile --target packed-equipment
fi

# --------------------------------------- in place of PostgreSQL's and Caddy's
others=$kept/others
if ! [ -e "$kept/others.whole" ]; then
    cp -a "$base" "$others"
    cp /etc/resolv.conf "$others/etc/resolv.conf" 2>/dev/null || true
    printf '#!/bin/sh\nexit 101\n' >"$others/usr/sbin/policy-rc.d"
    chmod 755 "$others/usr/sbin/policy-rc.d"
    mkdir -p "$others/etc/postgresql-common"
    echo 'create_main_cluster = false' >"$others/etc/postgresql-common/createcluster.conf"
    mount -t proc proc "$others/proc"
    # A folder that TMPDIR names is not there.
    { env -u TMPDIR chroot "$others" apt-get update &&
        env -u TMPDIR DEBIAN_FRONTEND=noninteractive chroot "$others" apt-get install -y --no-install-recommends \
            -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-unsafe-io \
            postgresql caddy wget; } >"$work/apt.log" 2>&1 ||
        impossible "PostgreSQL and Caddy cannot be had: $(tail -n 3 "$work/apt.log")"
    umount "$others/proc"
    chroot "$others" sh -c 'usermod --non-unique --uid 999 postgres && groupmod --non-unique --gid 999 postgres
        ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/'
    touch "$kept/others.whole"
fi
cat >"$others/usr/local/bin/database-start" <<'START'
#!/bin/bash
# What PostgreSQL's image does at its start, as far as compose.yaml asks for it.
set -euo pipefail
if ! [ -s "$PGDATA/PG_VERSION" ]; then
    # shellcheck disable=SC2086  # several options
    initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" -D "$PGDATA" \
        --encoding=UTF8 --locale=C.UTF-8 ${POSTGRES_INITDB_ARGS-}
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -w -o "-c listen_addresses= -c unix_socket_directories=/run/postgresql" start
    PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE") createdb -h /run/postgresql -U "$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl -D "$PGDATA" -w -m fast stop
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/run/postgresql
START
chmod 755 "$others/usr/local/bin/database-start"

# ------------------------------------------------------------------ services
"$python" - "$work" "$version" "$root/compose.yaml" "$others" <<'PYTHON'
import json, re, sys
from pathlib import Path

work, version, compose = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_text()
images = {
    f"{name}:{version}": {
        "root": (work / f"{name}.root").read_text().strip(),
        "config": json.loads((work / f"{name}.json").read_text()),
    }
    for name in ("av-backend", "av-agent", "av-equipment")
}
others = sys.argv[4]
for name, config in {
    "postgres": {"Entrypoint": ["/usr/local/bin/database-start"], "Cmd": []},
    "caddy": {},
}.items():
    tag = re.search(rf"docker.io/library/{name}:[^}}\s]+", compose)[0]
    images[tag] = {"root": others, "config": config}
(work / "images.json").write_text(json.dumps(images))
PYTHON
mkdir "$work/services"
chmod 711 "$work/services"
say "Starting the services of compose.yaml"
unshare --net --mount -- sh -c 'ip link set lo up && exec "$@"' sh \
    "$python" -B "$root/proto-tests/compose.py" "$root/compose.yaml" "$work/images.json" "$work/services"
say "✓ The containers work: from the first link to equipment that the backend knows."
