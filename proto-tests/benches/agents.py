#!/usr/bin/env python3
"""10,000 agents against one backend on a private PostgreSQL: what polls and
reports cost. Prints the figures of docs/sizing.md as JSON.

    cargo build --release --locked -p av-backend
    cargo build --release --locked -p av-proto-tests --bin agents-sim
    python3 proto-tests/benches/agents.py target/release/av-backend \\
            target/release/agents-sim [--agents 10000] [--devices 10] \\
            [--poll-s 300] [--report-s 300] [--seconds 120]

With --soak SECONDS instead: every agent polls and reports all that time, and
each minute the backend's memory and the database's size are told.

With --besieged CONNECTIONS instead: three times --seconds in peace and, in turn,
beside so many connections that are idle, send a head or a body byte by byte, or
stop in the middle of one.

CPU seconds are what /proc says of the backend and of every process of
PostgreSQL: unlike latencies they hardly change where the machine is busy.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.dont_write_bytecode = True
from timing import cpu_of_family, stat  # noqa: E402
from upgrade import Backend, Postgres  # noqa: E402


def resident_mib(pid):
    fields = pathlib.Path(f"/proc/{pid}/statm").read_text().split()
    return round(int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)


def memory_mib(pid):
    fields = dict(
        line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return round(int(fields["VmHWM"].split()[0]) / 1024, 1)


class Siege:
    """Connections that hold on. Those that are closed are made anew."""

    BEGINNINGS = [
        (b"", b""),
        (b"G", b""),
        (b"GET /config/x HTTP/1.1\r\nX-Slow: ", b"x"),
        (b"POST /ingest HTTP/1.1\r\nX-Site-Token: x\r\nContent-Length: 9000\r\n\r\n", b" "),
        (b"POST /login HTTP/1.1\r\nContent-Length: 9000\r\n\r\n", b""),
    ]

    def __init__(self, address, connections):
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        self.held = [None] * connections
        self.made = 0
        self.over = threading.Event()
        self.round()
        self.thread = threading.Thread(target=self.hold)
        self.thread.start()

    def round(self):
        for place, connection in enumerate(self.held):
            beginning, more = self.BEGINNINGS[place % len(self.BEGINNINGS)]
            try:
                if connection is None:
                    connection = self.held[place] = socket.create_connection(self.address, 5)
                    self.made += 1
                    connection.sendall(beginning)
                    connection.setblocking(False)
                elif more:
                    connection.sendall(more)
                # An answer is read; nothing more to come is an end.
                if not connection.recv(4096):
                    raise ConnectionResetError
            except BlockingIOError:
                pass
            except OSError:
                if connection is not None:
                    connection.close()
                self.held[place] = None

    def hold(self):
        while not self.over.wait(1):
            self.round()

    def end(self):
        self.over.set()
        self.thread.join()
        for connection in self.held:
            if connection is not None:
                connection.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("backend", type=pathlib.Path)
    parser.add_argument("simulator", type=pathlib.Path)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--poll-s", type=float, default=300)
    parser.add_argument("--report-s", type=float, default=300)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--soak", type=float, metavar="SECONDS")
    parser.add_argument("--besieged", type=int, metavar="CONNECTIONS")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="av-agents-")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, True)
        postgres = Postgres(stack, folder)
        # Beside PostgreSQL's defaults only what a server of one purpose has.
        for setting in ["shared_buffers = '256MB'", "max_wal_size = '1GB'"]:
            postgres.sql("postgres", f"ALTER SYSTEM SET {setting}")
        postgres.sql("postgres", "CREATE DATABASE av")
        programs = pathlib.Path(folder) / "bin"
        programs.mkdir()
        (programs / "av-backend").symlink_to(arguments.backend.resolve())
        backend = Backend(stack, folder, programs, postgres.url("av"))
        postgres.sql("av", f"""
            INSERT INTO sites (name, token)
            SELECT 'sim ' || n, 'sim-' || n FROM generate_series(0, {arguments.agents - 1}) n;
            INSERT INTO devices (site_id, name, ip, device_type, driver, driver_config)
            SELECT s.id, 'Device ' || n, '10.0.' || n / 250 || '.' || n % 250, 'projector',
                   'pjlink', '{{"pjlink": {{"port": 4352}}}}'
              FROM sites s, generate_series(0, {arguments.devices - 1}) n;
            ANALYZE""")

        def now():
            row = postgres.sql("av", """
                SELECT xact_commit, tup_inserted + tup_updated + tup_deleted, blks_read, blks_hit,
                       pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'),
                       pg_database_size(current_database())
                  FROM pg_stat_database WHERE datname = current_database()""")
            commits, changed, read, hit, wal, size = map(int, row.split("|"))
            return {
                "commits": commits, "rows_written": changed, "blocks_read": read,
                "blocks_hit": hit, "wal_bytes": wal, "database_bytes": size,
                "backend_cpu_s": stat(backend.process.process.pid)[1],
                "postgres_cpu_s": cpu_of_family(postgres.process.process.pid),
            }

        hashes = pathlib.Path(folder) / "hashes"
        runs = []

        def simulate(name, poll_s, report_s, seconds):
            # Each run's reports are the next ones: one of a hundred devices
            # has changed since.
            first_seq = 1 + 201 * len(runs)
            runs.append(name)
            hashes.write_text(postgres.sql("av", """
                SELECT coalesce(config_version, '-') FROM sites
                 ORDER BY substr(name, 5)::int""") + "\n")
            before, began = now(), time.monotonic()
            simulator = subprocess.Popen(
                [arguments.simulator, "--backend", backend.listen,
                 "--agents", str(arguments.agents), "--devices", str(arguments.devices),
                 "--poll-s", str(poll_s), "--report-s", str(report_s),
                 "--first-seq", str(first_seq), "--hashes", str(hashes),
                 "--seconds", str(seconds), "--threads", str(arguments.threads)],
                stdout=subprocess.PIPE, text=True)
            stack.callback(simulator.kill)
            while arguments.soak and simulator.poll() is None:
                print(json.dumps({
                    "minute": round((time.monotonic() - began) / 60, 1),
                    "backend_mib": resident_mib(backend.process.process.pid),
                    "database_mib": round(now()["database_bytes"] / (1 << 20), 1),
                    "load": os.getloadavg()[0],
                }), flush=True)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    simulator.wait(60)
            said, _ = simulator.communicate()
            assert simulator.returncode == 0, f"the simulator ended with {simulator.returncode}"
            took = time.monotonic() - began
            # What PostgreSQL counts it tells a second later at the most.
            time.sleep(2)
            after = now()
            told = {"run": name, **json.loads(said), "wall_s": round(took, 1)}
            told["load"] = os.getloadavg()[0]
            told["cost"] = {key: round(after[key] - before[key], 2) for key in before}
            told["backend_memory_mib"] = memory_mib(backend.process.process.pid)
            told["database_mib"] = after["database_bytes"] >> 20
            print(json.dumps(told), flush=True)

        if arguments.soak:
            simulate("soak", arguments.poll_s, arguments.report_s, arguments.soak)
            return 0
        if arguments.besieged:
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            simulate("first polls and reports", 60, 60, 65)
            for _ in range(3):
                simulate("peace", arguments.poll_s, arguments.report_s, arguments.seconds)
                siege = Siege(backend.listen, arguments.besieged)
                try:
                    simulate("besieged", arguments.poll_s, arguments.report_s, arguments.seconds)
                finally:
                    siege.end()
                print(json.dumps({"connections": arguments.besieged, "made": siege.made}), flush=True)
            return 0
        never = 1e9
        simulate("first polls and reports", arguments.seconds, arguments.seconds,
                 arguments.seconds + 5)
        simulate("polls", arguments.poll_s, never, arguments.seconds)
        simulate("reports", never, arguments.report_s, arguments.seconds)
        simulate("both", arguments.poll_s, arguments.report_s, arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
