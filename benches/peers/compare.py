"""Compare ours with PyTorch: the same machine, the same run, in turns.

    python -m venv .venv && .venv/bin/pip install -r benches/peers/requirements.txt
    cargo build --release -p locus-benches --bin peer
    .venv/bin/python benches/peers/compare.py

Prints, per piece of work, the median ratio of wall times ours / theirs with the smallest and the
largest, and the peak memory of each side. GPT-2 small shapes, random weights, 2 threads each.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 9
# Ours: method and position of the first token that differs (13 tokens, 8 pairs; EAP-IG has 5 steps).
PAIRS = [
    ("eap 0", "forward + backward"),
    ("eap 7", "forward + backward"),
    ("eap-ig 0", "forward + backward"),
    ("eap-ig 7", "forward + backward"),
    ("rome", "rome"),
]


def start(command):
    # The first and the last are what the `locus` program sets for itself; PyTorch reads neither.
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "2", "MIMALLOC_PURGE_DELAY": "-1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def run(process, work):
    process.stdin.write(work + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def peak(process):
    """Largest resident size so far, in MiB (Linux)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main():
    ours = start([ROOT / "target" / "release" / "peer"])
    theirs = start([sys.executable, Path(__file__).with_name("theirs.py")])
    print(f"{'ours':<12} {'theirs':<20} {'ratio':>6} {'min':>6} {'max':>6} {'ours ms':>8} {'theirs ms':>10}")
    for mine, other in PAIRS:
        for process, work in ((ours, mine), (theirs, other)):
            run(process, work)  # warm caches and allocators
        rounds = 3 if mine == "rome" else ROUNDS
        times = [(run(ours, mine), run(theirs, other)) for _ in range(rounds)]
        ratios = sorted(a / b for a, b in times)
        a, b = (statistics.median(side) for side in zip(*times))
        middle = statistics.median(ratios)
        print(
            f"{mine:<12} {other:<20} {middle:>6.2f} {ratios[0]:>6.2f} {ratios[-1]:>6.2f}"
            f" {1000 * a:>8.0f} {1000 * b:>10.0f}"
        )
    print(f"peak memory: ours {peak(ours):.0f} MiB, theirs {peak(theirs):.0f} MiB")


if __name__ == "__main__":
    main()
