#!/usr/bin/env python3
"""A sweep of simulated PJLink projectors: av-agent against threads in Python.

    proto-tests/benches/pjlink.py            500 projectors, then 20 % dead
    proto-tests/benches/pjlink.py --count 100 --rounds 3

Both ask each projector the same twenty questions of class 2 over one
connection, with a password. Everything runs in a network namespace of its own:
the projectors on 127.3.0.0/16, the dead behind an interface where packets
vanish. The programs take turns. Needs the Debian packages time, util-linux and
iproute2.
"""

import argparse
import hashlib
import ipaddress
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

sys.dont_write_bytecode = True
import network  # noqa: E402
import timing  # noqa: E402

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
    if "{" in text:
        return json.loads(text[text.index("{"):])["online"]
    return int(text.split()[0])


def program(command):
    def turn():
        *figures, text = timing.run(command)
        return *figures, online(text)

    return turn


def compare(title, config, living, rounds, agent):
    script = [sys.executable, pathlib.Path(__file__).resolve(), "--client", config]
    programs = {
        "av-agent sweep": program([agent, "sweep", config, "--json"]),
        "Python, 64 threads": program([*script, "--threads", "64"]),
        "Python, a thread each": program([*script, "--threads", "100000"]),
    }
    timing.compare(title, programs, living, rounds)


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
        network.enter([sys.executable, __file__, *sys.argv[1:], "--inside"])
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
            mixed = living[:count - dead] + addresses("10.66.0.1", dead)
            configuration(config, mixed)
            compare(f"{count} projectors, {dead} of them dead, time-out {TIMEOUT_S} s",
                    config, count - dead, arguments.rounds, release / "av-agent")
    finally:
        simulator.terminate()
        simulator.wait()


if __name__ == "__main__":
    main()
