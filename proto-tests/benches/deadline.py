#!/usr/bin/env python3
"""Does a sweep end within the time budget of its dead devices and a fifth?

    proto-tests/benches/deadline.py [--rounds 5] [--count 1000] [--timeout 0.5]

1,000 devices of each driver, and of all of them mixed, a fifth of them dead:
they are behind an interface where packets vanish. Each sweep is measured twice:

- `av-agent sweep`: wall time of the whole program, start and printing included;
- the service: what the running agent says of a sweep that it was asked for
  (`POST /sweep`), its probes spread as always. The first sweep does not know
  yet who is dead.

The budget is time-out x tries, with the drivers' defaults or `--timeout`; the
wanted ratio is at most 1.20. The drivers take turns in each round. Builds the
release programs and runs them in a network namespace of its own (util-linux,
iproute2; as root or where user namespaces are allowed). Ends with 1 where a
median is above 1.20 or a sweep found another number online than there are.
"""

import argparse
import ipaddress
import json
import os
import pathlib
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.dont_write_bytecode = True
import network  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
WANTED = 1.20
PAGE = "127.0.0.1:18080"
SNMP_PORT, PJLINK_PORT, TCP_PORT, HTTP_PORT = 1161, 4352, 9022, 9080
# By driver: settings, default time-out and tries, the first living address.
DRIVERS = {
    "ping": ({"count": 1}, 1.0, 1, "127.1.0.1"),
    "snmp": ({"port": SNMP_PORT, "retries": 1}, 2.0, 2, "127.2.0.1"),
    "pjlink": ({"port": PJLINK_PORT, "password": "admin"}, 2.0, 1, "127.3.0.1"),
    "tcp": ({"port": TCP_PORT, "banner": "SSH-2.0"}, 2.0, 1, "127.4.0.1"),
    "http": ({"port": HTTP_PORT}, 5.0, 1, "127.5.0.1"),
}


# -- the living --------------------------------------------------------------

def serve(port, banner, answer):
    """Says `banner` to whoever connects, `answer` to whoever asks, and closes."""
    listener = socket.create_server(("", port), backlog=4096)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)

    def run():
        while True:
            for key, _ in waiting.select():
                if key.fileobj is listener:
                    client, _ = listener.accept()
                    if banner:
                        client.sendall(banner)
                        client.close()
                    else:
                        waiting.register(client, selectors.EVENT_READ)
                    continue
                waiting.unregister(key.fileobj)
                try:
                    if key.fileobj.recv(4096):
                        key.fileobj.sendall(answer)
                except OSError:
                    pass
                key.fileobj.close()

    threading.Thread(target=run, daemon=True).start()


def start_living(release, count):
    serve(TCP_PORT, b"SSH-2.0-bench\r\n", None)
    serve(HTTP_PORT, None, b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    pjlink = subprocess.Popen(
        [release / "pjlink-sim", "--listen", f"127.3.0.1:{PJLINK_PORT}", "--count", str(count),
         "--class2", "--password", "admin"], stdout=subprocess.PIPE, text=True)
    snmp = subprocess.Popen([release / "snmp-sim", "--count", str(count),
                             "--port", str(SNMP_PORT)])
    if "projector" not in pjlink.stdout.readline():
        sys.exit("the projectors did not start")
    time.sleep(1)
    return [pjlink, snmp]


# -- the site ----------------------------------------------------------------

def snmp_address(n):
    # As snmp-sim and its helper count: 250 a network.
    return f"127.2.{n // 250}.{n % 250 + 1}"


def site(names, count, timeout):
    """The configuration, the budget in seconds and how many live."""
    devices, living, budget = [], 0, 0.0
    for n in range(count):
        name, place = names[n % len(names)], n // len(names)
        settings, default, tries, first = DRIVERS[name]
        settings = {**settings, "timeout_s": timeout or default}
        budget = max(budget, settings["timeout_s"] * tries)
        if place % 5 == 4:
            ip = f"10.66.{n // 250}.{n % 250 + 1}"
        else:
            living += 1
            ip = (snmp_address(place) if name == "snmp"
                  else str(ipaddress.ip_address(first) + place))
        # Nothing is to be in fault: no sweep comes that was not asked for.
        devices.append({"ip": ip, "name": ip, "driver": name, "driver_config": {name: settings},
                        "expectations": {"always_on": False, "alert_after_s": 15}})
    reporting = {"ok_interval_s": 86400, "ko_interval_s": 86400}
    document = {"site_name": "Bench", "site_token": "t", "backend_url": "http://127.0.0.1:9",
                "reporting": reporting, "devices": devices}
    return document, budget, living


# -- the measurement ---------------------------------------------------------

def sweep_once(agent, config, living):
    began = time.monotonic()
    done = subprocess.run([agent, "sweep", "--json", config], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    wall = time.monotonic() - began
    if done.returncode not in (0, 1):
        sys.exit(f"av-agent sweep: {done.returncode}\n{done.stderr}")
    return wall, json.loads(done.stdout)["online"] == living


def page(path, method="GET"):
    request = urllib.request.Request(f"http://{PAGE}{path}", method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def status(ready, what):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            document = page("/api/status")
            if ready(document):
                return document
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"{what} did not come")


def serviced(agent, config, rounds, living, folder):
    """Seconds of the first sweep of a running agent, of later ones, and how
    many of all were late by its own account."""
    environment = {"PATH": os.environ["PATH"], "AGENT_CONFIG": config, "RUST_LOG": "error",
                   "AV_STATE_DIR": f"{folder}/state-{os.path.basename(config)}",
                   "AV_PAGE_LISTEN": PAGE, "AV_PAGE_PAUSE_S": "0", "AV_FIRST_SYNC_S": "3600"}
    running = subprocess.Popen([agent], env=environment)
    try:
        took, right = [], True
        for n in range(rounds + 1):
            if n:
                page("/sweep", "POST")
            seen = status(lambda d: d["sweep"]["sweeps"] > n, "the end of a sweep")
            took.append(seen["sweep"]["took_s"])
            right &= sum(d["status"] == "online" for d in seen["devices"]) == living
            if n == 0:
                # What just failed is looked at again until that is decided.
                time.sleep(20)
                status(lambda d: not d["sweep"]["probes_in_flight"], "the end of looking again")
        return took[0], took[1:], seen["sweep"]["late_sweeps"], right
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(10)


def measure(agent, arguments, folder):
    kinds = {name: [name] for name in DRIVERS}
    kinds["all mixed"] = list(DRIVERS)
    if arguments.only:
        kinds = {name: kinds[name] for name in arguments.only}
    sites = {}
    for name, drivers in kinds.items():
        document, budget, living = site(drivers, arguments.count, arguments.timeout)
        config = f"{folder}/{name.replace(' ', '-')}.json"
        pathlib.Path(config).write_text(json.dumps(document))
        sites[name] = (config, budget, living)
    walls, right = {name: [] for name in sites}, True
    for _ in range(arguments.rounds):
        for name, (config, _, living) in sites.items():
            wall, all_found = sweep_once(agent, config, living)
            if not all_found:
                print(f"note: a sweep of {name} did not find {living} online", flush=True)
                right = False
            walls[name].append(wall)
    print(f"\n{arguments.count} devices, {arguments.count // 5} of them dead; wall ÷ budget, "
          f"median (the worst) of {arguments.rounds}; load {os.getloadavg()[0]:.1f}\n")
    print("| | budget, s | `av-agent sweep` | service, first sweep | further sweeps | late |")
    print("|---|---|---|---|---|---|")
    for name, (config, budget, living) in sites.items():
        first, further, late, all_found = serviced(agent, config, arguments.rounds, living, folder)
        if not all_found:
            print(f"note: the service did not find {living} of {name} online", flush=True)
        ratios = [wall / budget for wall in walls[name]]
        more = [took / budget for took in further]
        medians = (statistics.median(ratios), first / budget, statistics.median(more))
        print(f"| {name} | {budget:g} | {medians[0]:.3f} ({max(ratios):.3f}) | {medians[1]:.3f} "
              f"| {medians[2]:.3f} ({max(more):.3f}) | {late} of {1 + len(more)} |", flush=True)
        right &= all_found and max(medians) <= WANTED
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=1000, help="devices")
    parser.add_argument("--timeout", type=float, help="seconds, of every driver")
    parser.add_argument("--only", action="append", help="a driver, or 'all mixed'")
    parser.add_argument("--target", default=os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        subprocess.run(
            ["cargo", "build", "--release", "--locked", "-p", "av-agent", "-p", "av-proto-tests",
             "--bin", "av-agent", "--bin", "pjlink-sim", "--bin", "snmp-sim"],
            cwd=ROOT, check=True)
        network.enter([sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--inside"])
    release = pathlib.Path(arguments.target).resolve() / "release"
    living = start_living(release, arguments.count)
    try:
        with tempfile.TemporaryDirectory(prefix="av-deadline-") as folder:
            right = measure(release / "av-agent", arguments, folder)
    finally:
        for process in living:
            process.terminate()
            process.wait()
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
