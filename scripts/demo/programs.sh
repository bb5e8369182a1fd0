# shellcheck shell=bash
# Where the demonstration's programs come from: a folder that is named, this
# checkout, or the installed packages. Part of demo.sh, which sources it.
# shellcheck disable=SC2154,SC2034

# What a first build takes of the disk, and what runs of it need.
build_mb=${DEMO_BUILD_MB:-2500}
data_mb=${DEMO_DATA_MB:-300}

# agent_bin and backend_bin, or build=yes: they are built later.
agent_bin=
backend_bin=
build=no

runs() { "$1" --version >/dev/null 2>&1; }

# Dies where a program cannot be started here: built for another processor, or
# against a newer C library.
need_running() {
    [ -e "$1" ] || die "There is no ${1##*/} in ${1%/*}. $2"
    { [ -x "$1" ] && [ ! -d "$1" ]; } || die "$1 may not be executed."
    runs "$1" || die "$1 does not run here: $("$1" --version 2>&1 | head -n 1)"
}

# find_programs [DIR]
find_programs() {
    local folder=${1-} program
    if [ -n "$folder" ]; then
        [ -d "$folder" ] || die "--bin $folder: there is no such folder."
        folder=$(realpath "$folder")
        for program in av-agent av-backend; do
            need_running "$folder/$program" "--bin takes the folder that holds av-agent and av-backend."
        done
        agent_bin=$folder/av-agent
        backend_bin=$folder/av-backend
        say "Running $("$agent_bin" --version) and $("$backend_bin" --version) of $folder"
    elif find_cargo || ! { has av-agent && has av-backend; }; then
        [ -f "$root/Cargo.toml" ] || die "There is nothing to build here. Name the folder of av-agent and av-backend: ./demo.sh --bin FOLDER"
        if ! (need_cargo); then
            complain "Or run programs that are built already: ./demo.sh --bin FOLDER, or the packages av-agent and av-backend"
            exit 1
        fi
        build=yes
    else
        agent_bin=$(command -v av-agent)
        backend_bin=$(command -v av-backend)
        need_running "$agent_bin" ''
        need_running "$backend_bin" ''
        say "There is no Rust $rust_version here to build with: running the installed" \
            "$("$agent_bin" --version) and $("$backend_bin" --version)"
    fi
}

# Where cargo puts what it builds.
target_folder() {
    cargo metadata --format-version 1 --no-deps --locked --manifest-path "$root/Cargo.toml" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}

# The nearest folder that exists already.
existing() {
    local path=$1
    while [ ! -d "$path" ]; do path=$(dirname "$path"); done
    say "$path"
}

free_mb() { df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024) }'; }

# disk_enough FOLDER NEEDED WHAT VARIABLES: dies where less is free.
disk_enough() {
    local free
    free=$(free_mb "$1")
    [ "$free" -ge "$2" ] ||
        die "Too little disk space: $3 takes $2 MB of $1, and $free MB are free there. Free some, or set $4 to a folder elsewhere."
}

# check_disk DATA-FOLDER [TARGET-FOLDER]
check_disk() {
    local data target built=0 needed
    data=$(existing "$1")
    if [ $# -eq 2 ]; then
        target=$(existing "$2")
        # What earlier builds left is there already.
        if [ -d "$2/debug" ]; then built=$(du -sm "$2/debug" | cut -f1); fi
        needed=$((build_mb > built ? build_mb - built : 0))
        if [ "$(stat -c %d "$target")" = "$(stat -c %d "$data")" ]; then
            disk_enough "$target" $((needed + data_mb)) "the build with the data of the demonstration" \
                "CARGO_TARGET_DIR or DEMO_DIR"
            return 0
        fi
        disk_enough "$target" "$needed" "the build" CARGO_TARGET_DIR
    fi
    disk_enough "$data" "$data_mb" "the data of the demonstration" DEMO_DIR
}
