"""`feast materialize` and `online_write_batch`, against other stores and one that does nothing.

`python benches/materialize.py` (or `make bench`). The others are Feast's sqlite store and, where
there is a `redis-server`, its Redis store. All sides take their turns in one process, and
medians are compared. What the store that does nothing takes is Feast's own: reading the file,
and making a proto of every value. Ours writes durably, with an fsync for every batch.
`--memory` tells instead how the peak memory of a materialization grows with its rows.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float32, Float64, Int64, String
from feast_vector.online_store import VectorOnlineStore

ROUNDS = 5
# Of these, one round more or less tells nothing new.
SLOW = ("sqlite", "redis")
SLOW_ROUNDS = 2
BATCH = 10_000
REDIS_PORT = 6399
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
SCALARS = [f"f{i}" for i in range(10)]

SIDES = {
    "nothing, Feast's engine": ("nothing", "local"),
    "ours, our engine": ("vector", "vector"),
    "ours, Feast's engine": ("vector", "local"),
    "sqlite, Feast's engine": ("sqlite", "local"),
    "redis, Feast's engine": ("redis", "local"),
}


class NothingStore(VectorOnlineStore):
    """Takes all rows and forgets them."""

    def online_write_batch(self, config, table, data, progress):
        """Do nothing."""


def scalars(rows: int) -> tuple[pa.Table, list[Field]]:
    """Ten doubles."""
    rng = np.random.default_rng(0)
    columns = {name: rng.random(rows) for name in SCALARS}
    return pa.table(columns), [Field(name=name, dtype=Float64) for name in SCALARS]


def embeddings(rows: int) -> tuple[pa.Table, list[Field]]:
    """A vector of 384 elements, a text and two numbers."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal(rows * 384, dtype=np.float32)
    columns = {
        "v": pa.FixedSizeListArray.from_arrays(vectors, 384).cast(pa.list_(pa.float32())),
        "title": [f"the title of row {i}" for i in range(rows)],
        "price": rng.random(rows),
        "count": rng.integers(0, 100, rows),
    }
    vector = Field(
        name="v",
        dtype=Array(Float32),
        vector_index=True,
        vector_length=384,
        vector_search_metric="cosine",
    )
    fields = [("title", String), ("price", Float64), ("count", Int64)]
    return pa.table(columns), [vector, *(Field(name=n, dtype=t) for n, t in fields)]


def feature_store(folder: Path, side: str, path: Path, fields: list[Field]) -> FeatureStore:
    """A store whose view is the file."""
    kind, engine = SIDES[side]
    online: dict[str, Any] = {"type": "vector" if kind == "nothing" else kind}
    if kind == "redis":
        online["connection_string"] = f"localhost:{REDIS_PORT}"
    else:
        online["path"] = str(folder / "online.db")
    if online["type"] == "vector":
        # Vectors are indexed afterwards, in the background; here it would take the others' time.
        online["index_builds"] = "on_demand"
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store=online,
            batch_engine=engine,
            entity_key_serialization_version=3,
        )
    )
    if kind == "nothing":
        store._get_provider().online_store.__class__ = NothingStore  # noqa: SLF001
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    source = FileSource(path=str(path), timestamp_field="event_timestamp")
    store.apply([item, FeatureView(name="items", entities=[item], schema=fields, source=source)])
    return store


def write_file(path: Path, table: pa.Table) -> None:
    """Write what the offline store reads."""
    rng = np.random.default_rng(1)
    rows = table.num_rows
    table = table.append_column("id", pa.array(rng.permutation(rows)))
    times = pa.array([NOW] * rows, pa.timestamp("us", "UTC"))
    pq.write_table(table.append_column("event_timestamp", times), path)


def disk(folder: Path) -> int:
    """Bytes of the online store."""
    return sum(file.stat().st_size for file in folder.glob("online.db*") if file.is_file())


def turns(
    sides: list[str], path: Path, fields: list[Field], act: Callable[[FeatureStore], None]
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Let all sides do the same in turns: seconds and bytes on disk of each."""
    taken: dict[str, list[float]] = {side: [] for side in sides}
    sizes = {}
    for number in range(ROUNDS):
        for side in sides:
            if number >= SLOW_ROUNDS and side.startswith(SLOW):
                continue
            folder = path.parent / "store"
            folder.mkdir()
            store = feature_store(folder, side, path, fields)
            start = time.perf_counter()
            act(store)
            taken[side].append(time.perf_counter() - start)
            sizes[side] = disk(folder)
            store.teardown()
            shutil.rmtree(folder)
    return taken, sizes


def materialize(sides: list[str], name: str, table: pa.Table, fields: list[Field]) -> None:
    """Compare `feast materialize`."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "items.parquet"
        write_file(path, table)
        day = timedelta(days=1)
        taken, sizes = turns(
            sides, path, fields, lambda store: store.materialize(NOW - day, NOW + day)
        )
    print(f"\nmaterialize, {name}")
    report(table.num_rows, taken, sizes)


def report(rows: int, taken: dict[str, list[float]], sizes: dict[str, int]) -> None:
    """Print rows a second."""
    floor = statistics.median(next(iter(taken.values())))
    for side, seconds in taken.items():
        median = statistics.median(seconds)
        size = f"{sizes[side] / 1e6:>8.0f} MB" if sizes.get(side) else ""
        print(f"  {side:<26}{rows / median:>10,.0f} rows/s{floor / median:>8.2f}x{size}")


def write_batches(sides: list[str]) -> None:
    """Compare `online_write_batch` alone."""
    rows = 50_000
    table, fields = scalars(rows)
    order = np.random.default_rng(2).permutation(rows)
    columns = [table.column(name).to_pylist() for name in SCALARS]
    data = [
        (
            EntityKey(join_keys=["id"], entity_values=[Value(int64_val=int(row))]),
            {n: Value(double_val=column[row]) for n, column in zip(SCALARS, columns, strict=True)},
            NOW,
            None,
        )
        for row in order
    ]

    def write(store: FeatureStore) -> None:
        view = store.get_feature_view("items")
        online = store._get_provider().online_store  # noqa: SLF001
        for first in range(0, rows, BATCH):
            online.online_write_batch(store.config, view, data[first : first + BATCH], None)

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "items.parquet"
        write_file(path, table.slice(0, 1))
        taken, _ = turns(sides, path, fields, write)
    print(
        f"\nonline_write_batch, {rows:,} rows of 10 doubles in batches of {BATCH:,}, in any order"
    )
    report(rows, taken, {})


def memory() -> None:
    """Peak memory of a process that materializes, for several numbers of rows."""
    print("peak resident memory of a process that materializes 10 doubles, MB")
    for rows in (100_000, 250_000, 500_000, 1_000_000):
        peaks = []
        for side in ("ours, our engine", "nothing, our engine"):
            command = [sys.executable, __file__, "--peak", side, "--rows", str(rows)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
            peaks.append(int(done.stdout.split()[-1]))
        ours, reading = peaks
        print(f"  {rows:>9,} rows: {ours:,}; of it read by Feast, and not written: {reading:,}")


def peak(side: str, rows: int) -> None:
    """Materialize in this process, and print its peak memory in MB."""
    table, fields = scalars(rows)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "items.parquet"
        write_file(path, table)
        del table
        store = feature_store(Path(temporary), "ours, our engine", path, fields)
        if side.startswith("nothing"):
            from feast_vector.tables import TableWriter

            TableWriter.write = lambda *_: None  # type: ignore[method-assign]
        store.materialize(NOW - timedelta(days=1), NOW + timedelta(days=1))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=100_000, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak(options.peak, options.rows)
        return
    if options.memory:
        memory()
        return
    sides = [side for side in SIDES if not side.startswith("redis")]
    redis = None
    if server := shutil.which("redis-server"):
        sides = list(SIDES)
        command = [server, "--port", str(REDIS_PORT), "--save", "", "--appendonly", "no"]
        redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
        time.sleep(1)
    try:
        alone = [side for side in sides if side != "ours, our engine"]
        write_batches([alone[1], alone[0], *alone[2:]])
        materialize(sides, "100,000 rows of 10 doubles", *scalars(100_000))
        materialize(
            [side for side in sides if not side.startswith(SLOW)],
            "50,000 rows of 384 floats, a text and two numbers",
            *embeddings(50_000),
        )
    finally:
        if redis:
            redis.terminate()


if __name__ == "__main__":
    main()
