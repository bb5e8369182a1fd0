#!/usr/bin/env python3
"""One SNMP sweep of the agent beside two peers'.

    cargo build --release -p av-agent
    cargo build --release -p av-proto-tests --bin snmp-sim
    python3 -m venv venv && venv/bin/pip install pysnmp==7.1.30
    proto-tests/benches/snmp.py --pysnmp venv/bin/python [--runs 5]

The peers are prometheus-snmp-exporter (Debian package), asked for all devices
at once by curl, and pysnmp (PyPI) with 20 requests
in flight: with all at once most of its answers come after its own time-out. All
ask 500 devices over version 2c for sysDescr and sysUpTime, wait a second for
an answer and try once more.

It makes a network namespace of its own (util-linux, iproute2; as root or where
user namespaces are allowed), in which `snmp-sim` answers on 127.2.x.y; the dead
are behind an interface where packets vanish. The programs take turns. CPU is
user and system time; curl's is not counted, and neither is the exporter's or
Python's start. Memory is the most that was resident.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.dont_write_bytecode = True
import network  # noqa: E402
import timing  # noqa: E402

DEVICES, PORT, TIMEOUT_S, RETRIES = 500, 1161, 1, 1
EXPORTER_URL = "http://127.0.0.1:9116"
EXPORTER_CONFIG = f"""
bench:
  get: [1.3.6.1.2.1.1.1.0, 1.3.6.1.2.1.1.3.0]
  metrics:
  - {{name: sysDescr, oid: 1.3.6.1.2.1.1.1, type: DisplayString, help: text}}
  - {{name: sysUpTime, oid: 1.3.6.1.2.1.1.3, type: gauge, help: ticks}}
  version: 2
  timeout: {TIMEOUT_S}s
  retries: {RETRIES}
  auth: {{community: public}}
"""
PYSNMP = f"""
import asyncio, json, resource, sys, time
from pysnmp.hlapi.v3arch.asyncio import *


async def ask(engine, room, ip):
  async with room:
    target = await UdpTransportTarget.create((ip, {PORT}), timeout={TIMEOUT_S}, retries={RETRIES})
    error, status, _, values = await get_cmd(
        engine, CommunityData("public", mpModel=1), target, ContextData(),
        ObjectType(ObjectIdentity("1.3.6.1.2.1.1.1.0")),
        ObjectType(ObjectIdentity("1.3.6.1.2.1.1.3.0")), lookupMib=False)
    return not error and not status and len(values) == 2

async def main():
    engine, room = SnmpEngine(), asyncio.Semaphore(20)
    start, before = time.monotonic(), time.process_time()
    found = await asyncio.gather(*[ask(engine, room, ip) for ip in open(sys.argv[1]).read().split()])
    print(json.dumps([time.monotonic() - start, time.process_time() - before,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, sum(found)]))

asyncio.run(main())
"""


def addresses(dead):
    """Every fifth is dead where some shall be."""
    return [
        f"{'10.66' if dead and n % 5 == 0 else '127.2'}.{n // 250}.{n % 250 + 1}"
        for n in range(DEVICES)
    ]


def run_agent(agent, targets, folder):
    snmp = {"port": PORT, "timeout_s": TIMEOUT_S, "retries": RETRIES}
    devices = [
        {"ip": ip, "name": ip, "driver": "snmp", "driver_config": {"snmp": snmp}}
        for ip in targets
    ]
    with open(f"{folder}/config.json", "w") as file:
        json.dump({"site_name": "Bench", "devices": devices}, file)
    command = [agent, "sweep", "--json", f"{folder}/config.json"]
    *figures, text = timing.run(command)
    return *figures, json.loads(text[text.index("{") :])["online"]


def process_figures(pid):
    """CPU seconds until now, and the largest resident size in MB."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    with open(f"/proc/{pid}/status") as file:
        peak = next(line for line in file if line.startswith("VmHWM"))
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) / 1024


def run_exporter(targets, folder):
    with open(f"{folder}/snmp.yml", "w") as file:
        file.write(EXPORTER_CONFIG)
    with open(f"{folder}/urls", "w") as file:
        for ip in targets:
            file.write(f'url = "{EXPORTER_URL}/snmp?module=bench&target={ip}:{PORT}"\n')
    exporter = subprocess.Popen(
        ["prometheus-snmp-exporter", f"--config.file={folder}/snmp.yml"],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(EXPORTER_URL, timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        before, _ = process_figures(exporter.pid)
        start = time.monotonic()
        # curl has at most 300 at a time.
        command = ["curl", "-s", "--parallel", "--parallel-immediate"]
        command += ["--parallel-max", "300", "-K", f"{folder}/urls"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
        text = done.stdout
        wall = time.monotonic() - start
        after, resident = process_figures(exporter.pid)
    finally:
        exporter.terminate()
        exporter.wait()
    alive = text.count(b"\nsysUpTime ")
    return wall, after - before, resident, alive


def run_pysnmp(python, targets, folder):
    with open(f"{folder}/targets", "w") as file:
        file.write("\n".join(targets))
    command = [python, "-c", PYSNMP, f"{folder}/targets"]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return json.loads(result)


def measure(arguments, dead, folder):
    targets = addresses(dead)
    expected = sum(ip.startswith("127.") for ip in targets)
    programs = {"av-agent sweep": lambda: run_agent(arguments.agent, targets, folder)}
    programs["prometheus-snmp-exporter"] = lambda: run_exporter(targets, folder)
    if arguments.pysnmp:
        programs["pysnmp"] = lambda: run_pysnmp(arguments.pysnmp, targets, folder)
    title = f"{DEVICES} devices{', a fifth dead' if dead else ''}"
    timing.compare(title, programs, expected, arguments.runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", default="target/release/av-agent")
    parser.add_argument("--sim", default="target/release/snmp-sim")
    parser.add_argument("--pysnmp", help="a Python that has pysnmp")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        again = [sys.executable, os.path.abspath(__file__), "--inside"]
        again += ["--agent", os.path.abspath(arguments.agent)]
        again += ["--sim", os.path.abspath(arguments.sim)]
        if arguments.pysnmp:
            # A link in a venv leads out of it: it is not resolved.
            again += ["--pysnmp", os.path.abspath(arguments.pysnmp)]
        again += ["--runs", str(arguments.runs)]
        network.enter(again)
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.sim, "--count", str(DEVICES), "--port", str(PORT)]
        simulator = subprocess.Popen(command)
        try:
            time.sleep(1)
            for dead in (False, True):
                measure(arguments, dead, folder)
        finally:
            simulator.terminate()
            simulator.wait()


if __name__ == "__main__":
    main()
