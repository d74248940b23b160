"""The model of several processes with other seeds, for so many minutes: `make soak`."""

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))
import model

STEPS = 100


def main(minutes):
    """Go on with the next seed until the time is over; an error names its seed."""
    until = time.monotonic() + 60 * minutes
    seeds = 0
    while time.monotonic() < until:
        seed = random.randrange(10**9)
        model.run(seed, STEPS, tell=lambda *_: None)
        seeds += 1
        print(f"seed {seed}: {STEPS} steps, every answer right", flush=True)
    print(f"{seeds * STEPS} steps of {seeds} seeds")


if __name__ == "__main__":
    main(float(sys.argv[1]))
