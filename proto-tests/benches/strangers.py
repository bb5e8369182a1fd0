#!/usr/bin/env python3
"""What strangers that log in as fast as they can do to the polls and reports of
an agent. Prints a table of docs/benchmarks.md.

    cargo build --release --locked -p av-backend
    python3 proto-tests/benches/strangers.py target/release/av-backend

Takes PostgreSQL and wrk from Debian. The strangers are a process of their own,
and share the machine's processors with the backend.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

BENCHES = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(BENCHES.parent))
sys.dont_write_bytecode = True
from upgrade import backend_alone  # noqa: E402

TOKEN = hashlib.sha256(b"site").hexdigest()
LOGIN = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"name": "nobody", "password": "wrong password"}'
"""


class Agent:
    """Polls and reports over connections that are kept."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.report = json.dumps({
            "site_name": "Paris",
            "devices": [{"ip": "10.0.0.1", "name": "Projector", "building": "", "floor": "",
                         "room": "", "type": "other", "driver": "ping", "status": "online",
                         "detail": "ok", "verdict": "ok", "metrics": {}}],
        })

    def ask(self, method, path, body=None):
        headers = {"X-Site-Token": TOKEN, "Content-Type": "application/json"}
        began = time.monotonic()
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status == 200, (answer.status, text)
        return 1000 * (time.monotonic() - began)

    def rounds(self, seconds):
        """Milliseconds of polls and of reports."""
        polls, reports = [], []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            polls.append(self.ask("GET", "/config"))
            reports.append(self.ask("POST", "/ingest", self.report))
            time.sleep(0.02)
        return polls, reports


def told(times):
    times = sorted(times)
    return f"{statistics.median(times):.1f}, {times[int(0.99 * len(times))]:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", type=pathlib.Path)
    parser.add_argument("--connections", type=int, default=300)
    parser.add_argument("--seconds", type=int, default=20)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        backend, postgres = backend_alone(stack, arguments.backend)
        postgres.sql("av", f"""
            INSERT INTO sites (name, token) VALUES ('Paris', '{TOKEN}');
            INSERT INTO devices (site_id, name, ip, driver)
                VALUES (1, 'Projector', '10.0.0.1', 'ping')""")
        agent = Agent(int(backend.url.rsplit(":", 1)[1]))
        agent.rounds(2)
        quiet = agent.rounds(arguments.seconds)
        script = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".lua"))
        script.write(LOGIN)
        script.flush()
        strangers = subprocess.Popen(
            ["wrk", "-t1", f"-c{arguments.connections}", f"-d{arguments.seconds + 2}s", "-s", script.name,
             f"{backend.url}/login"], stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        busy = agent.rounds(arguments.seconds)
        said, _ = strangers.communicate()
        rate = float(re.search(r"Requests/sec:\s*([\d.]+)", said).group(1))
        print(f"{arguments.connections} connections, {rate:,.0f} tries a second; milliseconds, "
              "median and 99th percentile")
        print("\n| | quiet | with strangers |\n|---|---|---|")
        for name, one, other in zip(["a poll", "a report"], quiet, busy):
            print(f"| {name} | {told(one)} | {told(other)} |")


if __name__ == "__main__":
    main()
