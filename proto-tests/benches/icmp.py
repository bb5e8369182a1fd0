#!/usr/bin/env python3
"""One ping sweep of the agent beside fping's (Debian package fping).

    cargo build --release -p av-agent
    proto-tests/benches/icmp.py [--agent target/release/av-agent] [--runs 5]

It makes a network namespace of its own (util-linux, iproute2; as root or where
user namespaces are allowed). The living are addresses of its loopback
interface, 127.1.x.y; the dead are behind an interface where packets vanish.
Both programs ping each address three times and wait a second for an answer.
They take turns.
CPU is user and system time, as wait4(2) has them: what the kernel does for an
echo on the loopback interface is in the sender's system time. Memory is the
most that was resident, as time(1) (Debian package time) has it.

fping's `-i 1` is the fastest that its manual has; `-i 0`, which it takes from
root, sends without any pause. `-p` is the time between the echoes to one
target: for the agent that is 15 ms once a target has answered and 250 ms
before.
"""

import argparse
import json
import os
import sys
import tempfile

sys.dont_write_bytecode = True
import network  # noqa: E402
import timing  # noqa: E402

COUNT, TIMEOUT_S = 3, 1
FPING = ["fping", "-q", "-c", str(COUNT), "-t", str(TIMEOUT_S * 1000)]
PEERS = {
    "fping -i 0 -p 15": ["-i", "0", "-p", "15"],
    "fping -i 0 -p 250": ["-i", "0", "-p", "250"],
    "fping -i 1": ["-i", "1"],
}


def addresses(total, dead):
    """Every fifth is dead where some shall be."""
    return [
        f"{'10.66' if dead and n % 5 == 0 else '127.1'}.{n // 250}.{n % 250 + 1}"
        for n in range(total)
    ]


def configuration(targets):
    ping = {"ping": {"count": COUNT, "timeout_s": TIMEOUT_S}}
    return {
        "site_name": "Bench",
        "devices": [
            {"ip": ip, "name": ip, "driver": "ping", "driver_config": ping}
            for ip in targets
        ],
    }


def agent_alive(text):
    return json.loads(text[text.index("{") :])["online"]


def fping_alive(text):
    """Lines such as `127.1.0.1 : xmt/rcv/%loss = 3/3/0%, min/avg/max = ...`."""
    return sum(line.count("min/avg/max") for line in text.splitlines())


def program(command, alive):
    def turn():
        *figures, text = timing.run(command)
        return *figures, alive(text)

    return turn


def measure(agent, total, dead, runs, folder):
    targets = addresses(total, dead)
    alive = sum(ip.startswith("127.") for ip in targets)
    config, plain = f"{folder}/config.json", f"{folder}/targets"
    with open(config, "w") as file:
        json.dump(configuration(targets), file)
    with open(plain, "w") as file:
        file.write("\n".join(targets) + "\n")
    programs = {"av-agent sweep": program([agent, "sweep", "--json", config], agent_alive)}
    for name, options in PEERS.items():
        programs[name] = program([*FPING, *options, "-f", plain], fping_alive)
    share = ", a fifth dead" if dead else ""
    timing.compare(f"{total} addresses{share}", programs, alive, runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", default="target/release/av-agent")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        again = [sys.executable, os.path.abspath(__file__), "--inside"]
        again += ["--agent", os.path.abspath(arguments.agent)]
        again += ["--runs", str(arguments.runs)]
        network.enter(again)
    with tempfile.TemporaryDirectory() as folder:
        for total in (1000, 4000):
            for dead in (False, True):
                measure(arguments.agent, total, dead, arguments.runs, folder)


if __name__ == "__main__":
    main()
