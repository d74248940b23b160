"""`feast serve`: requests a second, against other stores and one that does nothing.

`python benches/serve.py` (or `make bench-stores`). The others are those of `stores.py`. A server
for each store, asked in turns for 10 features of 10 entities over kept connections, by as many
threads as there are connections.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from feast import FeatureView, Field, FileSource
from feast.types import Float64
from stores import ITEM, SCALARS, feature_store, online_config, servers

ROWS = 10_000
ENTITIES = 10
CONNECTIONS = (1, 8)
ROUNDS = 5
SECONDS = 2.0


def serve(folder: Path, kind: str) -> tuple[subprocess.Popen[bytes], int]:
    """Fill a store and serve it."""
    folder.mkdir()
    frame = pd.DataFrame(np.random.default_rng(0).random((ROWS, len(SCALARS))), columns=SCALARS)
    frame["id"] = range(ROWS)
    frame["event_timestamp"] = pd.Timestamp.now(tz="UTC")
    frame.iloc[:1].to_parquet(folder / "items.parquet")
    source = FileSource(path=str(folder / "items.parquet"), timestamp_field="event_timestamp")
    schema = [Field(name=name, dtype=Float64) for name in SCALARS]
    view = FeatureView(name="items", entities=[ITEM], schema=schema, source=source)
    feature_store(folder, kind, [view]).write_to_online_store("items", frame)
    config = {
        "project": "bench",
        "provider": "local",
        "registry": "registry.db",
        "entity_key_serialization_version": 3,
        "online_store": online_config(kind, folder),
    }
    (folder / "feature_store.yaml").write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    feast = str(Path(sys.executable).with_name("feast"))
    command = [feast, "serve", "-p", str(port), "--max-requests", "100000000", "--no-access-log"]
    process = subprocess.Popen(  # noqa: S603
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return process, port


def ask(port: int, until: float) -> int:
    """Ask over one connection until then; how often."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    done = 0
    while time.perf_counter() < until:
        ids = random.sample(range(ROWS), ENTITIES)
        body = {"features": [f"items:{name}" for name in SCALARS], "entities": {"id": ids}}
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/get-online-features", json.dumps(body), headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:  # noqa: PLR2004
            message = f"status {response.status}: {answer[:200]!r}"
            raise RuntimeError(message)
        done += 1
    connection.close()
    return done


def rate(port: int, connections: int) -> float:
    """Requests a second."""
    until = time.perf_counter() + SECONDS
    with ThreadPoolExecutor(connections) as pool:
        return sum(pool.map(lambda _: ask(port, until), range(connections))) / SECONDS


def wait_for(port: int) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        try:
            ask(port, time.perf_counter() + 0.2)
        except OSError:  # noqa: PERF203
            time.sleep(0.1)
        else:
            return


def main() -> None:
    """Run all."""
    # Where the servers find `stores.py`.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory() as temporary, servers(Path(temporary)) as kinds:
        folder = Path(temporary)
        # Milvus takes no view without a vector.
        asked = ["nothing", "vector", *(kind for kind in kinds if kind != "milvus")]
        served = {kind: serve(folder / kind, kind) for kind in asked}
        try:
            for _, port in served.values():
                wait_for(port)
            taken: dict[tuple[str, int], list[float]] = {}
            for _ in range(ROUNDS):
                for kind, (_, port) in served.items():
                    for connections in CONNECTIONS:
                        found = rate(port, connections)
                        taken.setdefault((kind, connections), []).append(found)
        finally:
            for process, _ in served.values():
                process.kill()
                process.wait()
    print(f"feast serve, requests a second for {len(SCALARS)} features of {ENTITIES} entities")
    print(f"{'':<10}" + "".join(f"{count:>14} at once" for count in CONNECTIONS))
    for kind in asked:
        rates = [statistics.median(taken[kind, count]) for count in CONNECTIONS]
        print(f"{kind:<10}" + "".join(f"{found:>16,.0f}" for found in rates))


if __name__ == "__main__":
    main()
