#!/usr/bin/env python3
"""What idle connections cost the backend: opens them, asks once on each, and
reads the memory and threads of the process. Prints a line of docs/benchmarks.md.

    cargo build --release --locked -p av-backend
    python3 proto-tests/benches/idle.py target/release/av-backend

Takes PostgreSQL from Debian, and as many descriptors as connections (ulimit -Hn).
"""

import argparse
import contextlib
import os
import pathlib
import resource
import socket
import sys

BENCHES = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(BENCHES.parent))
sys.dont_write_bytecode = True
from upgrade import backend_alone  # noqa: E402


def status(pid):
    """Resident memory in MiB, and threads."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", type=pathlib.Path)
    parser.add_argument("--connections", type=int, default=10_000)
    arguments = parser.parse_args()
    wanted = arguments.connections + 1000
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, most)))
    os.environ["AV_CONNECTIONS"] = str(arguments.connections + 100)
    with contextlib.ExitStack() as stack:
        backend, _ = backend_alone(stack, arguments.backend)
        pid = backend.process.process.pid
        before = status(pid)
        port = int(backend.url.rsplit(":", 1)[1])
        held = []
        for _ in range(arguments.connections):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(b"GET /static/icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200", "each is answered"
            held.append(connection)
        code, _, text = backend.get("/metrics")
        line = next(x for x in text.splitlines() if x.startswith("av_backend_http_connections "))
        assert code == 200 and int(line.split()[1]) >= arguments.connections, line
        memory, threads = status(pid)
        print(f"{arguments.connections} idle connections: {memory:.0f} MiB resident "
              f"({before[0]:.0f} without), {threads} threads")


if __name__ == "__main__":
    main()
