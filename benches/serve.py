"""`feast serve`: requests a second, against Feast's sqlite store and a store that does nothing.

`python benches/serve.py` (or `make bench`). A server for each store, asked in turns for 10 features
of 10 entities over kept connections, by as many threads as there are connections.
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
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from feast.types import Float64

ROWS = 10_000
ENTITIES = 10
CONNECTIONS = (1, 8)
ROUNDS = 5
SECONDS = 2.0
NAMES = [f"f{i}" for i in range(10)]
KINDS = {"nothing": "serve.NothingOnlineStore", "ours": "vector", "sqlite": "sqlite"}

YAML = """
project: bench
provider: local
registry: registry.db
entity_key_serialization_version: 3
online_store:
  type: {kind}
  path: online.db
"""


class NothingOnlineStoreConfig(FeastConfigBaseModel):
    """Nothing to configure."""

    type: str = "serve.NothingOnlineStore"
    path: str = ""


class NothingOnlineStore(OnlineStore):
    """Answers without looking, by Feast's own way."""

    _row = (datetime(2026, 1, 1, tzinfo=timezone.utc), {n: Value(double_val=1.5) for n in NAMES})

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Everything."""
        return SupportedAsyncMethods(read=True, write=True)

    def online_write_batch(self, config, table, data, progress):
        """Forget the rows."""

    def online_read(self, config, table, entity_keys, requested_features=None):  # noqa: ARG002
        """Give the same row for every key."""
        return [self._row] * len(entity_keys)

    async def online_read_async(self, config, table, entity_keys, requested_features=None):
        """Give the same row for every key."""
        return self.online_read(config, table, entity_keys, requested_features)

    def update(self, *_, **__):
        """Do nothing."""

    def teardown(self, *_, **__):
        """Do nothing."""

    async def initialize(self, config):
        """Do nothing."""

    async def close(self):
        """Do nothing."""


def serve(folder: Path, kind: str) -> tuple[subprocess.Popen[bytes], int]:
    """Fill a store and serve it."""
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(YAML.format(kind=kind))
    frame = pd.DataFrame(np.random.default_rng(0).random((ROWS, len(NAMES))), columns=NAMES)
    frame["id"] = range(ROWS)
    frame["event_timestamp"] = pd.Timestamp.now(tz="UTC")
    frame.iloc[:1].to_parquet(folder / "items.parquet")
    source = FileSource(path=str(folder / "items.parquet"), timestamp_field="event_timestamp")
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    schema = [Field(name=name, dtype=Float64) for name in NAMES]
    store = FeatureStore(folder)
    store.apply([item, FeatureView(name="items", entities=[item], schema=schema, source=source)])
    store.write_to_online_store("items", frame)
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
        body = {"features": [f"items:{name}" for name in NAMES], "entities": {"id": ids}}
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
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory() as folder:
        servers = {name: serve(Path(folder) / name, kind) for name, kind in KINDS.items()}
        try:
            for _, port in servers.values():
                wait_for(port)
            taken: dict[tuple[str, int], list[float]] = {}
            for _ in range(ROUNDS):
                for name, (_, port) in servers.items():
                    for connections in CONNECTIONS:
                        found = rate(port, connections)
                        taken.setdefault((name, connections), []).append(found)
        finally:
            for process, _ in servers.values():
                process.kill()
                process.wait()
    print(f"feast serve, requests a second for {len(NAMES)} features of {ENTITIES} entities")
    print(f"{'':<10}" + "".join(f"{count:>14} at once" for count in CONNECTIONS))
    for name in KINDS:
        rates = [statistics.median(taken[name, count]) for count in CONNECTIONS]
        print(f"{name:<10}" + "".join(f"{found:>16,.0f}" for found in rates))


if __name__ == "__main__":
    main()
