"""`get_online_features` by entity key, against Feast's own way over a store that does nothing.

`python benches/reads.py` (or `make bench`). All sides answer in turns in one process, and medians
are compared, because machines are noisy. The store that does nothing has its answer ready: what is
left is what Feast itself takes, the floor of every store that it reads its own way.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import feast_vector
import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64
from feast_vector.online_store import VectorOnlineStore

ROWS = 100_000
FEATURES = 10
ENTITIES = (1, 10, 100, 1000)
ROUNDS = {1: 400, 10: 300, 100: 100, 1000: 30}
BURST = 10
NAMES = [f"f{i}" for i in range(FEATURES)]

YAML = """
project: bench
provider: local
registry: registry.db
entity_key_serialization_version: 3
online_store:
  type: {kind}
  path: {kind}.db
"""


class NothingStore(VectorOnlineStore):
    """Answers without looking, by Feast's own way."""

    get_online_features = OnlineStore.get_online_features
    _read_features_per_fv = OnlineStore._read_features_per_fv  # noqa: SLF001
    _row = (datetime(2026, 1, 1, tzinfo=timezone.utc), {n: Value(double_val=1.5) for n in NAMES})

    def online_read(self, config, table, entity_keys, requested_features=None):  # noqa: ARG002
        """Give the same row for every key."""
        return [self._row] * len(entity_keys)


def feature_store(folder: Path, kind: str, views: int) -> FeatureStore:
    """A store with views of ten numbers."""
    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text(YAML.format(kind=kind))
    store = FeatureStore(folder)
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    pd.DataFrame({"id": [1], "event_timestamp": [pd.Timestamp.now(tz="UTC")]}).to_parquet(
        folder / "items.parquet"
    )
    source = FileSource(path=str(folder / "items.parquet"), timestamp_field="event_timestamp")
    schema = [Field(name=name, dtype=Float64) for name in NAMES]
    store.apply(
        [
            item,
            *(
                FeatureView(name=f"view{i}", entities=[item], schema=schema, source=source)
                for i in range(views)
            ),
        ]
    )
    return store


def filled(folder: Path, kind: str, views: int) -> FeatureStore:
    """The same, with rows."""
    store = feature_store(folder, kind, views)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({name: rng.random(ROWS) for name in NAMES})
    frame["id"] = range(ROWS)
    frame["event_timestamp"] = pd.Timestamp.now(tz="UTC")
    for i in range(views):
        for start in range(0, ROWS, 20_000):
            store.write_to_online_store(f"view{i}", frame.iloc[start : start + 20_000])
    return store


def reads_a_second(view: feast_vector.VectorView, threads: int) -> float:
    """Native reads of 100 keys by so many threads at once, for a second."""
    rng = np.random.default_rng(2)
    batches = [rng.integers(0, ROWS, 100).tolist() for _ in range(64)]
    serialized = [view._serialized(batch) for batch in batches]  # noqa: SLF001
    engine, declaration = view._engine, view._declaration  # noqa: SLF001
    until = time.perf_counter() + 1

    def work(number: int) -> int:
        done = 0
        while time.perf_counter() < until:
            engine.read(declaration, serialized[(done + number * 7) % 64], typed=True)
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads)))


def concurrency(store: FeatureStore, path: Path) -> None:
    """Readers in threads, alone and while another process writes without a pause."""
    view = feast_vector.open_view(store, "view0")
    writer = (
        "import sys, pandas as pd; from feast import FeatureStore\n"
        "store = FeatureStore(sys.argv[1])\n"
        f"frame = pd.DataFrame({{name: range(5000) for name in {['id', *NAMES]}}}, dtype=float)\n"
        "frame['id'] = frame['id'].astype(int)\n"
        "while True:\n"
        "    frame['event_timestamp'] = pd.Timestamp.now(tz='UTC')\n"
        "    store.write_to_online_store('view0', frame); print(flush=True)"
    )
    counts = sorted({1, 2, os.cpu_count() or 1})
    figures = {}
    for kind in ("alone", "beside a writer"):
        process = None
        if kind != "alone":
            command = [sys.executable, "-c", writer, str(path)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603
            process.stdout.readline()
        rounds = [[reads_a_second(view, count) for count in counts] for _ in range(5)]
        figures[kind] = [statistics.median(taken) for taken in zip(*rounds, strict=True)]
        if process:
            process.kill()
            process.communicate()
    print(f"\nnative reads of 100 keys a second, by {' / '.join(map(str, counts))} threads")
    for kind, rates in figures.items():
        print(f"  {kind:<16}{' / '.join(f'{rate:,.0f}' for rate in rates)}")


def main() -> None:
    """Run all."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        ours = filled(Path(folder) / "ours", "vector", 5)
        theirs = filled(Path(folder) / "theirs", "sqlite", 1)
        nothing = feature_store(Path(folder) / "nothing", "vector", 5)
        nothing._get_provider().online_store.__class__ = NothingStore  # noqa: SLF001
        print(f"get_online_features, {ROWS:,} rows on disk, {FEATURES} float64 features, p50 in ms")
        print(f"{'views':>5} {'entities':>8} {'nothing':>9} {'ours':>9} {'ratio':>6} {'sqlite':>9}")
        for views in (1, 5):
            features = [f"view{i}:{name}" for i in range(views) for name in NAMES]
            for count in ENTITIES:
                stores = [nothing, ours, *([theirs] if views == 1 else [])]
                times = [[] for _ in stores]
                for _ in range(ROUNDS[count] // BURST + 1):
                    rows = {"id": rng.integers(0, ROWS, count).tolist()}
                    for store, taken in zip(stores, times, strict=True):
                        # The first call of a burst is left out: Feast remembers what it has found
                        # in the registry for one store at a time.
                        for call in range(BURST + 1):
                            start = time.perf_counter()
                            store.get_online_features(features, rows, full_feature_names=True)
                            if call > 0:
                                taken.append((time.perf_counter() - start) * 1e3)
                floor, own, *sqlite = (statistics.median(taken) for taken in times)
                last = f"{sqlite[0]:>9.3f}" if sqlite else ""
                print(f"{views:>5} {count:>8} {floor:>9.3f} {own:>9.3f} {own / floor:>6.2f} {last}")
        concurrency(ours, Path(folder) / "ours")


if __name__ == "__main__":
    main()
