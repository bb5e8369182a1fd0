#!/usr/bin/env python3
"""Prints what is inside of a program, as CycloneDX 1.5 in JSON.

    sbom.py CARGO-CYCLONEDX PART EPOCH

PART is `agent` or `backend`. cargo-cyclonedx writes its file beside Cargo.toml,
with a random serial number, the time of now and paths of this machine. Here the
file goes, the time is EPOCH, and the other two are left out: the same lock file
makes the same list.
"""

import datetime
import glob
import json
import os
import subprocess
import sys


def without_paths(value):
    """References of packages of the workspace have its folder in them."""
    root = os.getcwd()
    if isinstance(value, dict):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    if isinstance(value, str):
        return value.replace(f"path+file://{root}", "path+file:///source").replace(
            f"file://{root}", "file:///source"
        )
    return value


def main(tool, part, epoch):
    name = f"av-{part}-sbom"
    path = f"{part}/{name}.json"
    subprocess.run(
        [
            tool, "cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5",
            "--target", "all", "--no-build-deps",
            "--override-filename", name, "--manifest-path", f"{part}/Cargo.toml",
        ],
        check=True, stdout=sys.stderr,
    )  # fmt: skip
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    # It writes one for each member of the workspace.
    for written in glob.glob(f"*/{name}.json") + glob.glob(f"*/*/{name}.json"):
        os.unlink(written)
    found.pop("serialNumber", None)
    moment = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
    found["metadata"]["timestamp"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    json.dump(without_paths(found), sys.stdout, ensure_ascii=False, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
