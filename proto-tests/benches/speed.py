#!/usr/bin/env python3
"""The backend's two busiest routes beside peers, in one run:

 - unchanged polls (304) beside nginx with the same bodies in files, and beside
   the same contract in FastAPI and SQLAlchemy (fastapi_service.py);
 - reports of 100 devices that have all changed, in observations a second,
   beside COPY of as many rows into the same table, and the Python service.

    cargo build --release --locked -p av-backend
    python3 -m venv venv
    venv/bin/pip install fastapi 'uvicorn[standard]' sqlalchemy 'psycopg[binary]'
    proto-tests/benches/speed.py target/release/av-backend venv/bin/python

Needs PostgreSQL, nginx and wrk. The candidates take turns; what is printed is
the median of the rounds. Each has the load generator and PostgreSQL on the same
cores.
"""

import argparse
import contextlib
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
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.dont_write_bytecode = True
from upgrade import Backend, Postgres, Process, free_port, wait_for  # noqa: E402

SITES, DEVICES = 1000, 10
BIG_SITES, BIG_DEVICES = 20, 100

POLLS_LUA = """
local requests, next = {}, 0
for line in io.lines("%s") do
  local path, etag = line:match("(%%S+) (%%S+)")
  requests[#requests + 1] = wrk.format("GET", path, {["Host"] = "bench", ["If-None-Match"] = etag})
end
request = function()
  next = next %% #requests + 1
  return requests[next]
end
"""

REPORTS_LUA = """
local bodies, sent = {}, 0
for half = 0, 1 do
  local file = io.open("%s" .. half)
  bodies[half] = file:read("*a")
  file:close()
end
request = function()
  local site, round = sent %% %d, math.floor(sent / %d)
  sent = sent + 1
  local body = bodies[round %% 2]:gsub("SITE", site, 1):gsub("SEQ", %d + round, 1)
  return wrk.format("POST", "/ingest", {["Host"] = "bench", ["X-Site-Token"] = "big-" .. site,
    ["Content-Type"] = "application/json"}, body)
end
"""


def wrk(address, script, seconds, connections):
    """Requests a second; every answer must be one of success."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, f"http://{address}"],
        check=True, capture_output=True, text=True)
    assert "Non-2xx" not in done.stdout and "Socket errors" not in done.stdout, done.stdout
    return float(re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)[1])


def report(half):
    status, verdict = (("online", "ok"), ("offline", "unknown"))[half]
    devices = [{
        "ip": f"10.0.{n // 250}.{n % 250}", "name": f"Device {n}", "building": "A", "floor": "1",
        "room": "101", "type": "projector", "driver": "pjlink", "status": status,
        "verdict": verdict, "detail": None,
        "metrics": {"pjlink_ok": True, "pjlink_power": 1, "pjlink_power_label": "on",
                    "pjlink_port": 4352, "ts": "2026-01-01T00:00:00Z"},
    } for n in range(BIG_DEVICES)]
    text = json.dumps({"site_name": "big SITE", "devices": devices})
    return text[:-1] + ', "report": {"stream": "bench", "seq": SEQ}}'


def nginx(stack, folder, files):
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(f"""
        worker_processes 2; daemon off; pid {folder}/nginx.pid; error_log stderr error;
        user root;
        events {{ worker_connections 1024; }}
        http {{ access_log off; keepalive_requests 1000000000; default_type application/json;
                open_file_cache max=2000; client_body_temp_path {folder}/body;
                proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
                uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
                server {{ listen 127.0.0.1:{port}; root {files}; }} }}""")
    process = Process(folder, "nginx", ["nginx", "-p", folder, "-c", conf, "-e", "stderr"])
    stack.callback(process.end)
    wait_for("nginx listens", lambda: alive(port), process.tail)
    return f"127.0.0.1:{port}"


def alive(port):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def etag(address, path):
    with urllib.request.urlopen(f"http://{address}{path}") as answer:
        return answer.headers["ETag"], answer.read()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("backend", type=pathlib.Path)
    parser.add_argument("python", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="av-speed-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, True)
        postgres = Postgres(stack, folder)
        postgres.sql("postgres", "ALTER SYSTEM SET max_wal_size = '4GB'")
        postgres.sql("postgres", "CREATE DATABASE av")
        programs = folder / "bin"
        programs.mkdir()
        (programs / "av-backend").symlink_to(arguments.backend.resolve())
        os.environ["RUST_LOG"] = "warn"
        backend = Backend(stack, folder, programs, postgres.url("av"))
        for name, sites, devices in (("sim", SITES, DEVICES), ("big", BIG_SITES, BIG_DEVICES)):
            postgres.sql("av", f"""
                INSERT INTO sites (name, token)
                SELECT '{name} ' || n, '{name}-' || n FROM generate_series(0, {sites - 1}) n;
                INSERT INTO devices (site_id, name, ip, device_type, driver, driver_config)
                SELECT s.id, 'Device ' || n, '10.0.' || n / 250 || '.' || n % 250, 'projector',
                       'pjlink', '{{"pjlink": {{"port": 4352}}}}'
                  FROM sites s, generate_series(0, {devices - 1}) n WHERE s.name LIKE '{name} %'""")
        postgres.sql("av", "ANALYZE")

        files = folder / "files"
        (files / "config").mkdir(parents=True)
        for number in range(SITES):
            path = f"/config/sim-{number}"
            _, body = etag(backend.listen, path)
            (files / path[1:]).write_bytes(body)
        listen = {"backend": backend.listen, "nginx": nginx(stack, folder, files)}
        port = free_port()
        python = Process(
            folder, "python",
            [arguments.python, "-m", "uvicorn", "fastapi_service:app", "--port", str(port),
             "--workers", "2", "--no-access-log", "--log-level", "warning"],
            {"DATABASE_URL": postgres.url("av").replace("postgres://", "postgresql+psycopg://")},
            cwd=pathlib.Path(__file__).resolve().parent)
        stack.callback(python.end)
        wait_for("the Python service listens", lambda: alive(port), python.tail)
        listen["python"] = f"127.0.0.1:{port}"

        scripts = {}
        for name, address in listen.items():
            lines = [f"/config/sim-{n} {etag(address, f'/config/sim-{n}')[0]}" for n in range(SITES)]
            (folder / f"{name}.requests").write_text("\n".join(lines) + "\n")
            scripts[name] = folder / f"{name}.lua"
            scripts[name].write_text(POLLS_LUA % (folder / f"{name}.requests"))
        same = [(folder / f"{name}.requests").read_text() for name in ("backend", "python")]
        assert same[0] == same[1], "the two services do not compute the same hashes"

        polls = {name: [] for name in listen}
        for _ in range(arguments.rounds):
            for name, address in listen.items():
                polls[name].append(wrk(address, scripts[name], arguments.seconds, 32))
        rates = {name: statistics.median(rates) for name, rates in polls.items()}
        print(json.dumps({"polls_per_s": polls, "load": os.getloadavg()[0]}), flush=True)
        print(f"unchanged polls: backend / nginx {rates['backend'] / rates['nginx']:.2f}, "
              f"backend / python {rates['backend'] / rates['python']:.1f}", flush=True)

        for half in (0, 1):
            (folder / f"report{half}").write_text(report(half))
        taken = {"backend": [], "python": [], "copy": []}
        seq = 1
        for number in range(arguments.rounds):
            for name in ("backend", "python"):
                script = folder / "reports.lua"
                script.write_text(REPORTS_LUA % (folder / "report", BIG_SITES, BIG_SITES, seq))
                seq += 1_000_000
                rate = wrk(listen[name], script, arguments.seconds, 8)
                taken[name].append(rate * BIG_DEVICES)
            rows = 200_000
            table = folder / "rows.csv"
            postgres.sql("av", f"""\\copy (SELECT site_id, device_id, ip, observed_at
                + interval '{number + 1} microseconds' + (row_number() OVER ()) * interval '1 ms',
                received_at, status, verdict, detail, metrics FROM observations
                LIMIT {rows}) TO '{table}' CSV""".replace("\n", " "))
            rows = sum(1 for _ in open(table))
            began = time.monotonic()
            postgres.sql("av", f"\\copy observations FROM '{table}' CSV")
            taken["copy"].append(rows / (time.monotonic() - began))
        rates = {name: statistics.median(rates) for name, rates in taken.items()}
        print(json.dumps({"observations_per_s": taken, "load": os.getloadavg()[0]}), flush=True)
        print(f"observations: backend / COPY {rates['backend'] / rates['copy']:.2f}, "
              f"backend / python {rates['backend'] / rates['python']:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
