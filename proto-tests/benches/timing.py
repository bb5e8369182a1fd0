"""How the benches time programs, let them take turns, and print what they took."""

import contextlib
import os
import pathlib
import statistics
import sys
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")


def stat(pid):
    """The parent, the CPU seconds with those of children that have ended."""
    text = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(text[1]), sum(map(int, text[11:15])) / TICKS


def cpu_of_family(root):
    """CPU seconds of a process and of those that it started."""
    total = 0.0
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent, seconds = stat(entry.name)
                if root in (int(entry.name), parent):
                    total += seconds
    return total


def run(command):
    """Wall and CPU seconds, the largest resident size in MB, what it printed."""
    with tempfile.TemporaryFile() as output, tempfile.NamedTemporaryFile() as memory:
        # A child of this script would be told to be as large as Python was.
        command = ["time", "-q", "-f", "%M", "-o", memory.name, *map(str, command)]
        start = time.monotonic()
        child = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
            ],
        )
        _, status, usage = os.wait4(child, 0)
        wall = time.monotonic() - start
        output.seek(0)
        text = output.read().decode()
        # One line a program; before it, one that says how it ended.
        resident = int(memory.read().split()[-1]) / 1024
    # 1: some did not answer, for the agent as for fping.
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        sys.exit(f"{' '.join(command)}:\n{text}")
    return wall, usage.ru_utime + usage.ru_stime, resident, text


def compare(title, programs, alive, runs):
    """Lets the programs take turns, so that what else the machine does falls on
    all alike, and prints a table for docs/benchmarks.md. Each is a function
    that returns wall and CPU seconds, MB and how many it found alive."""
    results = {name: [] for name in programs}
    for _ in range(runs):
        for name, program in programs.items():
            *figures, found = program()
            if found != alive:
                print(f"note: {name} found {found} of {alive}", flush=True)
            results[name].append(figures)
    first = next(iter(results.values()))
    base = [statistics.median(column) for column in zip(*first)]
    print(f"\n### {title}\n")
    print("| | wall, s: median (best) | as a ratio | CPU, s: median (best) | as a ratio | memory, MB |")
    print("|---|---|---|---|---|---|")
    for name, figures in results.items():
        wall, cpu, memory = zip(*figures)
        cells = []
        for column, of, digits in ((wall, base[0], 2), (cpu, base[1], 3)):
            middle = statistics.median(column)
            cells.append(f"{middle:.{digits}f} ({min(column):.{digits}f})")
            cells.append(f"{middle / of:.2f}")
        print(f"| {name} | {' | '.join(cells)} | {max(memory):.1f} |", flush=True)
