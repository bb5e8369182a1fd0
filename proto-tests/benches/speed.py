#!/usr/bin/env python3
"""The backend beside nginx, a Python service and COPY, in one run. Prints the
tables of docs/benchmarks.md.

    cargo build --release --locked -p av-backend
    python3 -m venv peers && peers/bin/pip install -r proto-tests/benches/speed.txt
    python3 proto-tests/benches/speed.py target/release/av-backend peers/bin/python

Takes nginx, wrk and PostgreSQL from Debian. `--only polls` or `--only reports`
leaves the other out.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

BENCHES = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(BENCHES.parent))
sys.dont_write_bytecode = True
from timing import cpu_of_family  # noqa: E402
from upgrade import Backend, Postgres, Process, free_port, request, wait_for  # noqa: E402

SITES = 8
DEVICES = 100
# As the backend makes them.
TOKENS = [hashlib.sha256(str(site).encode()).hexdigest() for site in range(SITES)]

NGINX = """
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    default_type application/json;
    client_body_temp_path {folder}/nginx-1;
    proxy_temp_path {folder}/nginx-2;
    fastcgi_temp_path {folder}/nginx-3;
    uwsgi_temp_path {folder}/nginx-4;
    scgi_temp_path {folder}/nginx-5;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/www;
    }}
}}
"""

# A connection a thread, so that the reports of a site stay in order.
REPORTS = """
local threads = 0
function setup(thread) thread:set("id", threads) threads = threads + 1 end
function init(args)
    local file = io.open(args[1] .. "/report-" .. id)
    local token = file:read("*l")
    body = file:read("*a")
    file:close()
    headers = { ["X-Site-Token"] = token, ["Content-Type"] = "application/json" }
    n = tonumber(args[2])
end
function request()
    n = n + 1
    return wrk.format("POST", "/ingest", headers, (body:gsub("@", n)))
end
"""


def wrk(url, seconds, threads, connections, *more):
    """Requests a second; an error where any was not answered as it should."""
    said = subprocess.run(
        ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", url, *more],
        capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "Non-2xx" not in said.stdout and "Socket errors" not in said.stdout, said.stdout
    done = int(re.search(r"(\d+) requests in", said.stdout).group(1))
    rate = float(re.search(r"Requests/sec:\s*([\d.]+)", said.stdout).group(1))
    assert done, said.stdout
    return rate


def wait_until_up(url, process):
    wait_for(f"{url} answers", lambda: request("GET", url), process.tail)


def fill(postgres):
    # Devices as contract and guides have them.
    sites = ", ".join(f"('Site {n}', '{token}', 'Europe/Paris')" for n, token in enumerate(TOKENS))
    postgres.sql("av", f"""
        INSERT INTO sites (name, token, timezone) VALUES {sites};
        INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room,
                             driver_config, expectations)
        SELECT s.id, 'Projector ' || n, '10.0.0.' || n, 'projector', 'pjlink', 'Building A', '1',
               'Room ' || n, '{{"pjlink": {{"port": 4352, "password": "secret", "timeout_s": 2}}}}',
               '{{"always_on": false, "alert_after_s": 300, "schedule": {{"timezone": "Europe/Paris",
                 "rules": [{{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "08:00",
                             "end": "18:00"}}]}}}}'
          FROM sites s, generate_series(1, {DEVICES}) n;
        ANALYZE""")


def report(site, stream):
    """The token and a report in which every device differs from the report before
    it: `@` is its number."""
    return TOKENS[site] + "\n" + json.dumps({
        "site_name": f"Site {site}",
        "devices": [{
            "ip": f"10.0.0.{n}", "name": f"Projector {n}", "building": "Building A",
            "floor": "1", "room": f"Room {n}", "type": "projector", "driver": "pjlink",
            "status": "online", "detail": "on, @", "verdict": "ok",
            "metrics": {"pjlink_ok": True, "pjlink_port": 4352, "pjlink_auth": True,
                        "pjlink_power": 1, "pjlink_power_label": "on", "pjlink_error": None},
        } for n in range(1, DEVICES + 1)],
        "report": {"stream": stream, "seq": "@"},
    }).replace('"seq": "@"', '"seq": @')


class Bench:
    def __init__(self, stack, arguments):
        self.arguments = arguments
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="av-speed-"))
        stack.callback(shutil.rmtree, self.folder, True)
        self.postgres = Postgres(stack, self.folder)
        for setting in ["shared_buffers = '256MB'", "max_wal_size = '2GB'"]:
            self.postgres.sql("postgres", f"ALTER SYSTEM SET {setting}")
        self.postgres.sql("postgres", "CREATE DATABASE av")
        programs = self.folder / "bin"
        programs.mkdir()
        (programs / "av-backend").symlink_to(arguments.backend.resolve())
        url = self.postgres.url("av")
        self.backend = Backend(stack, self.folder, programs, url, log="warn")
        fill(self.postgres)
        self.python = self.start_python(stack, url)
        self.nginx = self.start_nginx(stack)

    def start_python(self, stack, url):
        port = free_port()
        process = Process(
            self.folder, "python",
            [self.arguments.python, "-m", "uvicorn", "fastapi_service:app", "--port", str(port),
             "--workers", str(os.cpu_count()), "--no-access-log", "--log-level", "warning"],
            {"DATABASE_URL": url.replace("postgres:", "postgresql+psycopg:"),
             "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=BENCHES)
        stack.callback(process.end)
        wait_until_up(f"http://127.0.0.1:{port}/config/{TOKENS[0]}", process)
        return process, f"http://127.0.0.1:{port}"

    def start_nginx(self, stack):
        port = free_port()
        www = self.folder / "www" / "config"
        www.mkdir(parents=True)
        _, _, text = self.backend.get(f"/config/{TOKENS[0]}")
        (www / TOKENS[0]).write_text(text)
        # Its workers are another user where it is started as root.
        for path in [self.folder / "www", www]:
            path.chmod(0o755)
        (self.folder / "nginx.conf").write_text(NGINX.format(folder=self.folder, port=port))
        process = Process(
            self.folder, "nginx",
            ["nginx", "-c", self.folder / "nginx.conf", "-g", "daemon off;"])
        stack.callback(process.end)
        wait_until_up(f"http://127.0.0.1:{port}/config/{TOKENS[0]}", process)
        return process, f"http://127.0.0.1:{port}"

    def polls(self):
        peers = {
            "the backend": (self.backend.process, self.backend.url),
            "nginx, the same bytes from a file": self.nginx,
            "FastAPI and SQLAlchemy": self.python,
        }
        known = {}
        for name, (_, url) in peers.items():
            status, headers, text = request("GET", f"{url}/config/{TOKENS[0]}")
            assert status == 200, (name, status, text)
            known[name] = headers["ETag"]
            unchanged = request("GET", f"{url}/config/{TOKENS[0]}", {"If-None-Match": known[name]})
            assert unchanged[0] == 304, (name, unchanged)
        assert known["the backend"] == known["FastAPI and SQLAlchemy"], known
        for connections in self.arguments.connections:
            found = {name: [] for name in peers}
            for _ in range(self.arguments.rounds):
                for name, (process, url) in peers.items():
                    self.wait_until_idle()
                    before, began = cpu_of_family(process.process.pid), time.monotonic()
                    rate = wrk(f"{url}/config/{TOKENS[0]}", self.arguments.seconds,
                               self.arguments.threads, connections, "-H", f"If-None-Match: {known[name]}")
                    took = time.monotonic() - began
                    cpu = cpu_of_family(process.process.pid) - before
                    found[name].append((rate, 1e6 * cpu / (rate * took)))
            self.table(f"Unchanged polls, {connections} connections",
                       "polls a second: median (best)", found)

    def wait_until_idle(self):
        """Who was asked before goes on with what nobody waits for any more."""
        programs = [self.backend.process, self.python[0], self.nginx[0], self.postgres.process]

        def used():
            return sum(cpu_of_family(program.process.pid) for program in programs)

        def rest():
            before = used()
            time.sleep(0.5)
            return used() - before <= 0.02

        wait_for("all are at rest", rest)

    def table(self, title, what, found):
        first = statistics.median(rate for rate, _ in found["the backend"])
        print(f"\n### {title}\n\n| | {what} | the backend's is so many times it | CPU µs each |")
        print("|---|---|---|---|")
        for name, figures in found.items():
            rates, costs = zip(*figures)
            middle = statistics.median(rates)
            print(f"| {name} | {middle:,.0f} ({max(rates):,.0f}) | {first / middle:.2f} "
                  f"| {statistics.median(costs):.1f} |", flush=True)

    def reports(self):
        script = self.folder / "reports.lua"
        script.write_text(REPORTS)
        peers = {
            "the backend": (self.backend.process, self.backend.url),
            "FastAPI and SQLAlchemy": self.python,
        }
        found = {name: [] for name in [*peers, "COPY into the same table"]}
        number = 0
        for turn in range(self.arguments.rounds):
            for place, (name, (process, url)) in enumerate(peers.items()):
                for site in range(SITES):
                    (self.folder / f"report-{site}").write_text(report(site, f"{turn}-{place}"))
                number += 1_000_000
                before, cpu = self.observations(), cpu_of_family(process.process.pid)
                cpu += cpu_of_family(self.postgres.process.process.pid)
                began = time.monotonic()
                wrk(url, self.arguments.seconds, SITES, SITES, "-s", script, "--",
                    self.folder, str(number))
                took = time.monotonic() - began
                cpu = (cpu_of_family(process.process.pid)
                       + cpu_of_family(self.postgres.process.process.pid) - cpu)
                taken = self.observations() - before
                assert taken, process.tail()
                found[name].append((taken / took, 1e6 * cpu / taken))
            found["COPY into the same table"].append(self.copy())
        self.table(f"Reports of {DEVICES} devices, all of which changed, of {SITES} sites at once",
                   "observations a second: median (best)", found)

    def observations(self):
        return int(self.postgres.sql("av", "SELECT count(*) FROM observations"))

    def copy(self):
        """The rows of these reports once more, under devices that are nobody's."""
        rows = self.folder / "rows"
        self.postgres.sql("av", f"""\\copy (SELECT site_id, -device_id, ip, observed_at,
            received_at, status, verdict, detail, metrics FROM observations
            WHERE device_id > 0 LIMIT 300000) TO '{rows}'""".replace("\n", " "))
        before = self.observations()
        cpu, began = cpu_of_family(self.postgres.process.process.pid), time.monotonic()
        self.postgres.sql("av", f"\\copy observations FROM '{rows}'")
        took = time.monotonic() - began
        # Until what served it has ended, and counts with its parent.
        time.sleep(0.5)
        cpu = cpu_of_family(self.postgres.process.process.pid) - cpu
        taken = self.observations() - before
        self.postgres.sql("av", "DELETE FROM observations WHERE device_id < 0")
        self.postgres.sql("av", "VACUUM observations")
        return taken / took, 1e6 * cpu / taken


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("backend", type=pathlib.Path)
    parser.add_argument("python", help="with what speed.txt names")
    parser.add_argument("--only", choices=["polls", "reports"])
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of wrk, for the polls")
    parser.add_argument("--connections", type=int, nargs="+", default=[64])
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        bench = Bench(stack, arguments)
        if arguments.only != "reports":
            bench.polls()
        if arguments.only != "polls":
            bench.reports()


if __name__ == "__main__":
    main()
