"""Every crash image of workloads with other seeds, for so many minutes: `make soak`."""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))
import crash_images

KINDS = [
    ("full", False),
    ("full", True),
    ("normal", False),
    ("normal", True),
    ("off", False),
]


def main(minutes):
    """Go on with the next seed until the time is over; a failure is printed with its seed."""
    until = time.monotonic() + 60 * minutes
    seed = all_seen = all_lost = 0
    while time.monotonic() < until:
        seed += 1
        for durability, power in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                log = crash_images.record(folder, seed, durability)
                lost, seen = crash_images.failures(
                    log, seed, folder, 10**9 if minutes > 60 else 400, durability, power=power
                )
            kind = "power cut" if power else "killed"
            print(f"seed {seed}, durability {durability}, {kind}: {seen} images, {len(lost)} lost")
            for sentence in lost[:5]:
                print("  ", sentence)
            all_seen, all_lost = all_seen + seen, all_lost + len(lost)
    print(f"{all_seen} crash images, {all_lost} of them wrong")
    return 1 if all_lost or not all_seen else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
