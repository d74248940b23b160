"""Copies, another SQLite and forks beside writers, for so many minutes: `make soak`."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))
import locks_workload


def main(minutes):
    """Alternate between the workloads until the time is over."""
    until = time.monotonic() + 60 * minutes
    failures = 0
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder:
            lost, counts = locks_workload.run_tramplers(Path(folder), 20)
        print(
            f"beside copies and sqlite3: {counts} rows acknowledged, {len(lost)} lost", flush=True
        )
        failures += len(lost)
        for kind in ("python", "c", "bare"):
            with tempfile.TemporaryDirectory() as folder:
                command = [
                    sys.executable,
                    "-W",
                    "ignore",
                    locks_workload.__file__,
                    kind,
                    folder,
                    "20",
                ]
                said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(f"forks ({kind}): lost rows, forks, failed children: {said.strip()}", flush=True)
            failures += not (said.startswith("([],") and said.strip().endswith("[])"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
