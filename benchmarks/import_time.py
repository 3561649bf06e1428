"""What importing costs, in processor time, as a share of what torch's own import takes in the same process.

    python benchmarks/import_time.py
    python benchmarks/import_time.py --rounds 20

Each round is a process of its own; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

MEASUREMENT = """
import json, time
marks = [time.process_time()]
import diffspace
marks.append(time.process_time())
import torch
marks.append(time.process_time())
diffspace.Heun
marks.append(time.process_time())
print(json.dumps([end - start for start, end in zip(marks, marks[1:])]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="processes to start (default: 8)")
    rounds = parser.parse_args().rounds
    runs = [
        json.loads(
            subprocess.run([sys.executable, "-c", MEASUREMENT], capture_output=True, text=True, check=True).stdout
        )
        for _ in range(rounds)
    ]
    print(f"{'':36}{'ms':>8}{'share of torch':>16}")
    for column, name in enumerate(["import diffspace", "import torch", "diffspace.Heun, the first name"]):
        milliseconds = 1e3 * statistics.median(run[column] for run in runs)
        print(f"{name:36}{milliseconds:8.1f}{statistics.median(run[column] / run[1] for run in runs):16.3f}")


if __name__ == "__main__":
    main()
