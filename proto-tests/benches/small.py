#!/usr/bin/env python3
"""The measuring part of small.sh: a backend for one agent, and /proc."""

import hashlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

AGENT, SWEEPS = sys.argv[1], int(sys.argv[2])
LIVING, DEAD = 800, 200
PAGE, BACKEND = "127.0.0.1:18080", ("127.0.0.1", 18081)
TICKS = os.sysconf("SC_CLK_TCK")
# What is measured before the rest: sweeps until everything was used once.
WARM_UP = 20
TRACED = 10
IDLE_S = 60


def device(i):
    if i < LIVING:
        ip = f"127.1.{i // 250}.{i % 250 + 1}"
    else:
        ip = f"10.66.0.{i - LIVING}"
    return {
        "ip": ip, "name": f"Device {i}", "building": f"Building {i // 250}",
        "floor": str(i // 50 % 5), "room": f"Room {i // 5}", "type": "display",
        "driver": "ping", "driver_config": {"ping": {"count": 1, "timeout_s": 0.5}},
        "expectations": {"always_on": False, "alert_after_s": 15, "schedule": {
            "timezone": "Europe/Paris",
            "rules": [{"days": ["mon", "tue", "wed", "thu", "fri"],
                       "start": "08:00", "end": "18:00"}]}},
    }


def site():
    devices = [device(i) for i in range(LIVING + DEAD)]
    # Nothing is to be in fault: the sweeps are asked for, and no other comes.
    for dead in devices[LIVING:]:
        dead["expectations"].pop("schedule")
    head = {"site_name": "Bench", "timezone": "Europe/Paris", "doubt_after_days": 2,
            "ok_interval_s": 86400, "ko_interval_s": 86400}
    hashed = dict(head, devices=sorted(devices, key=lambda d: d["ip"]))
    text = json.dumps(hashed, sort_keys=True, ensure_ascii=False)
    document = {
        "config_hash": hashlib.md5(text.encode()).hexdigest(),
        **{k: head[k] for k in ("site_name", "timezone", "doubt_after_days")},
        "reporting": {k: head[k] for k in ("ok_interval_s", "ko_interval_s")},
        "devices": [dict(d, snmp={}, pjlink={}) for d in devices],
    }
    return document["config_hash"], json.dumps(document).encode()


HASH, CONFIG = site()
reports = []


def unit_environment(prefix):
    unit = os.path.join(os.path.dirname(__file__), "../../systemd/av-agent.service")
    variables = re.findall(r"^Environment=(\w+)=(.*)$", open(unit).read(), re.M)
    return {name: value for name, value in variables if name.startswith(prefix)}


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("ETag", f'"{HASH}"')
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 304:
            self.wfile.write(body)

    def do_GET(self):
        if self.headers.get("If-None-Match") == f'"{HASH}"':
            return self.answer(304)
        return self.answer(200, CONFIG)

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        report = json.loads(body)
        reports.append((time.time(), report["report"]["seq"], len(report["devices"])))
        self.answer(200, json.dumps({"ok": True, "upserted": 1}).encode())

    def log_message(self, *_):
        pass


def page(path, method="GET"):
    request = urllib.request.Request(f"http://{PAGE}{path}", method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def metric(name):
    text = page("/metrics").decode()
    found = re.search(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.M)
    return float(found.group(1)) if found else 0.0


def proc(pid):
    status = open(f"/proc/{pid}/status").read()
    value = lambda key: int(re.search(rf"^{key}:\s+(\d+)", status, re.M).group(1))
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    cpu = (int(fields[11]) + int(fields[12])) / TICKS
    return {"rss": value("VmRSS"), "peak": value("VmHWM"), "threads": value("Threads"),
            "virtual": value("VmSize"), "cpu": cpu}


def sweep(count):
    """Asks for sweeps, one after the other, and waits for each."""
    for _ in range(count):
        before = metric("av_agent_sweeps_total")
        page("/sweep", "POST")
        deadline = time.time() + 60
        while metric("av_agent_sweeps_total") <= before:
            if time.time() > deadline:
                raise SystemExit("a sweep did not end")
            time.sleep(0.05)


def wait_quiet():
    """Until every report is taken."""
    deadline = time.time() + 60
    while json.loads(page("/api/status"))["report"]["pending"]:
        if time.time() > deadline:
            raise SystemExit("reports were not taken")
        time.sleep(0.1)


def writes(pid, count):
    """Calls that reach the disk during `count` sweeps."""
    with tempfile.NamedTemporaryFile("r") as trace:
        calls = "fsync,fdatasync,sync,syncfs,sync_file_range,rename,renameat,renameat2"
        strace = subprocess.Popen(["strace", "-f", "-qq", "-e", f"trace={calls}",
                                   "-o", trace.name, "-p", str(pid)])
        time.sleep(2)
        sweep(count)
        wait_quiet()
        strace.send_signal(signal.SIGINT)
        strace.wait()
        names = re.findall(r"^\d+\s+(\w+)\(", trace.read(), re.M)
    return {name: names.count(name) for name in sorted(set(names))}


def main():
    server = http.server.ThreadingHTTPServer(BACKEND, Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="av-small-") as folder:
        config = os.path.join(folder, "config.json")
        with open(config, "w") as file:
            json.dump({"site_name": "Bench", "site_token": "t",
                       "backend_url": "http://%s:%d" % BACKEND}, file)
        environment = {
            "PATH": os.environ["PATH"], "AGENT_CONFIG": config, "AV_STATE_DIR": folder + "/state",
            "AV_PAGE_LISTEN": PAGE, "AV_PAGE_PAUSE_S": "0", "AV_FIRST_SYNC_S": "0", "RUST_LOG": "warn",
            # As the unit has them.
            **unit_environment("MALLOC_"),
        }
        agent = subprocess.Popen([AGENT], env=environment)
        try:
            measure(agent.pid)
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(10)


def measure(pid):
    deadline = time.time() + 60
    while time.time() < deadline:
        try:
            if len(json.loads(page("/api/status"))["devices"]) == LIVING + DEAD:
                break
        except OSError:
            pass
        time.sleep(0.2)
    # Until what just failed is decided: it is looked at again until then.
    time.sleep(20)
    sweep(WARM_UP)
    wait_quiet()
    first = proc(pid)
    began, reported = time.time(), len(reports)
    late = metric("av_agent_sweeps_late_total")
    quarter = max(1, SWEEPS // 4)
    rss = []
    for _ in range(SWEEPS // quarter):
        sweep(quarter)
        wait_quiet()
        rss.append(proc(pid)["rss"])
    last, took = proc(pid), time.time() - began
    swept = quarter * (SWEEPS // quarter)
    late = metric("av_agent_sweeps_late_total") - late
    sent = len({seq for at, seq, _ in reports[reported:]})
    calls = writes(pid, TRACED)
    wait_quiet()
    time.sleep(5)
    idle = proc(pid)["cpu"]
    time.sleep(IDLE_S)
    idle = proc(pid)["cpu"] - idle
    per_sweep = (last["cpu"] - first["cpu"]) / swept
    # At the usual pace a sweep comes every five minutes.
    usual = idle / IDLE_S + per_sweep / 300
    rows = [
        ("program, stripped", f"{os.path.getsize(AGENT) / 1e6:.2f} MB", "under 4 MB"),
        ("resident, after the first %d sweeps" % WARM_UP, f"{first['rss'] / 1024:.1f} MiB",
         "under 12 MB"),
        ("resident, after %d more, by quarters" % swept,
         " ".join(f"{kib / 1024:.1f}" for kib in rss) + " MiB", "under 12 MB, no growth"),
        ("resident, the most", f"{last['peak'] / 1024:.1f} MiB", ""),
        ("threads", str(last["threads"]), "at most 64"),
        ("address space", f"{last['virtual'] / 1024:.0f} MiB", ""),
        ("CPU at rest", f"{100 * idle / IDLE_S:.2f} % of a core", "under 0.5 %"),
        ("CPU of a sweep and its report", f"{1000 * per_sweep:.0f} ms", ""),
        ("CPU with a sweep every 300 s", f"{100 * usual:.2f} % of a core", "under 0.5 %"),
        ("sweeps that missed their deadline", f"{late:.0f} of {swept}", ""),
        ("reports for %d sweeps" % swept,
         str(sent), "two of 500 devices each"),
        ("calls that reach the disk, %d sweeps" % TRACED,
         ", ".join(f"{count} {name}" for name, count in calls.items()) or "none",
         "one a sweep"),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    print(f"{LIVING} devices that answer, {DEAD} that do not; {swept} sweeps in {took:.0f} s")
    print()
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")


main()
