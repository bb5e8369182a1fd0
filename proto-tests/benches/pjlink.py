#!/usr/bin/env python3
"""A sweep of simulated PJLink projectors: av-agent against threads in Python.

    proto-tests/benches/pjlink.py            500 projectors, then 20 % dead
    proto-tests/benches/pjlink.py --count 100 --rounds 3

Both ask each projector the same twenty questions of class 2 over one
connection, with a password. Everything runs in a network namespace of its own:
the projectors on 127.3.0.0/16, the dead behind an interface where packets
vanish. In each round every candidate runs once, one after the
other. Prints a table for docs/benchmarks.md.
"""

import argparse
import hashlib
import ipaddress
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
PASSWORD = "admin"
TIMEOUT_S = 2
PORT = 4352
QUESTIONS = (
    "%1POWR ?", "%1ERST ?", "%1LAMP ?", "%1CLSS ?", "%2INPT ?", "%1AVMT ?",
    "%2INST ?", "%1NAME ?", "%1INF1 ?", "%1INF2 ?", "%1INFO ?", "%2INNM ?31",
    "%2IRES ?", "%2FILT ?", "%2FREZ ?", "%2RRES ?", "%2SNUM ?", "%2SVER ?",
    "%2RLMP ?", "%2RFIL ?",
)


# -- the client in Python ----------------------------------------------------

def ask(address):
    """What a projector answers to all questions, or None."""
    try:
        with socket.create_connection((address, PORT), TIMEOUT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pending = b""

            def line():
                nonlocal pending
                while b"\r" not in pending:
                    piece = connection.recv(512)
                    if not piece:
                        raise OSError("closed")
                    pending += piece
                text, pending = pending.split(b"\r", 1)
                return text.decode()

            digest = ""
            greeting = line().split()
            if greeting[:2] == ["PJLINK", "1"]:
                digest = hashlib.md5((greeting[2] + PASSWORD).encode()).hexdigest()
            answers = []
            for question in QUESTIONS:
                connection.sendall(f"{digest}{question}\r".encode())
                digest = ""
                answers.append(line())
            return answers
    except OSError:
        return None


def client(path, threads):
    devices = json.loads(path.read_text())["devices"]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(ask, [device["ip"] for device in devices]))
    print(sum(answers is not None for answers in found), "online")


# -- the measurement ---------------------------------------------------------

def measure(command):
    """Wall and processor seconds, peak memory in MB, and what it printed."""
    with tempfile.TemporaryFile() as out:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode()
    if process.returncode not in (0, 1):
        sys.exit(f"{command}: exit code {process.returncode}\n{text}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text


def configuration(path, projectors):
    devices = [
        {"ip": ip, "name": ip, "driver": "pjlink",
         "driver_config": {"pjlink": {"password": PASSWORD, "timeout_s": TIMEOUT_S}}}
        for ip in projectors
    ]
    path.write_text(json.dumps({
        "site_name": "Bench", "site_token": "t", "backend_url": "http://127.0.0.1:9",
        "devices": devices,
    }))


def online(text):
    """How many were online, as either candidate says."""
    if text.lstrip().startswith("{"):
        return json.loads(text)["online"]
    return int(text.split()[0])


def compare(title, config, living, rounds, agent):
    script = [sys.executable, str(pathlib.Path(__file__).resolve()), "--client", str(config)]
    candidates = {
        "av-agent sweep": [str(agent), "sweep", str(config), "--json"],
        "Python, 64 threads": [*script, "--threads", "64"],
        "Python, a thread each": [*script, "--threads", "100000"],
    }
    runs = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, command in candidates.items():
            wall, cpu, memory, text = measure(command)
            if online(text) != living:
                sys.exit(f"{name}: {online(text)} online, not {living}\n{text[-500:]}")
            runs[name].append((wall, cpu, memory))
    first = next(iter(candidates))
    base = [min(column) for column in zip(*runs[first])]
    print(f"\n{title}; best (median) of {rounds}, and the best as a multiple of {first}'s\n")
    print("| | wall, s | | CPU, s | | peak memory, MB | |")
    print("|---|---|---|---|---|---|---|")
    for name, values in runs.items():
        cells = []
        for column, of in zip(zip(*values), base):
            cells.append(f"{min(column):.2f} ({statistics.median(column):.2f})")
            cells.append(f"{min(column) / of:.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def addresses(first, count):
    return [str(ipaddress.ip_address(first) + index) for index in range(count)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="projectors")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--target", default=os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--client", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=64, help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        client(arguments.client, min(arguments.threads, arguments.count))
        return
    if not arguments.inside:
        subprocess.run(
            ["cargo", "build", "--release", "--locked", "-p", "av-agent",
             "-p", "av-proto-tests", "--bin", "av-agent", "--bin", "pjlink-sim"],
            cwd=ROOT, check=True)
        users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        os.execvp("unshare", ["unshare", *users, "--net", sys.executable, __file__,
                              *sys.argv[1:], "--inside"])
    for command in ("ip link set lo up",
                    "ip link add vanish type veth peer name end",
                    "ip link set vanish arp off up",
                    "ip link set end up",
                    "ip address add 10.99.255.254/16 dev vanish"):
        subprocess.run(command.split(), check=True)
    release = pathlib.Path(arguments.target) / "release"
    count, dead = arguments.count, arguments.count // 5
    simulator = subprocess.Popen(
        [release / "pjlink-sim", "--listen", f"127.3.0.1:{PORT}", "--count", str(count),
         "--class2", "--password", PASSWORD],
        stdout=subprocess.PIPE, text=True)
    try:
        if "projector" not in simulator.stdout.readline():
            sys.exit("the projectors did not start")
        living = addresses("127.3.0.1", count)
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder) / "config.json"
            configuration(config, living)
            compare(f"{count} projectors", config, count, arguments.rounds,
                    release / "av-agent")
            mixed = living[:count - dead] + addresses("10.99.0.1", dead)
            configuration(config, mixed)
            compare(f"{count} projectors, {dead} of them dead, time-out {TIMEOUT_S} s",
                    config, count - dead, arguments.rounds, release / "av-agent")
    finally:
        simulator.terminate()
        simulator.wait()


if __name__ == "__main__":
    main()
