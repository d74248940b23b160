"""`feast materialize` and `online_write_batch`, against other stores and one that does nothing.

`python benches/materialize.py` (or `make bench-stores`). The others are those of `stores.py`. All
sides take their turns in one process, and medians are compared. What the store that does nothing
takes is Feast's own: reading the file, and making a proto of every value. Ours writes durably, with
an fsync for every batch. `--memory` tells instead how the peak memory of a materialization, and of
writing one batch, grows with its rows.
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
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore, FeatureView, Field, FileSource
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float32, Float64, Int64, String
from stores import ITEM, NOW, SCALARS, feature_store, servers

ROUNDS = 5
# Of the others, one round more or less tells nothing new.
SLOW_ROUNDS = 2
OURS = ("nothing", "vector")
BATCHES = (1_000, 10_000, 50_000)

Side = tuple[str, str]
"""A kind of store, and a compute engine: ours, or Feast's, which is "local"."""


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


def write_file(path: Path, table: pa.Table) -> None:
    """Write what the offline store reads."""
    rng = np.random.default_rng(1)
    rows = table.num_rows
    table = table.append_column("id", pa.array(rng.permutation(rows)))
    times = pa.array([NOW] * rows, pa.timestamp("us", "UTC"))
    pq.write_table(table.append_column("event_timestamp", times), path)


def disk(folder: Path) -> int:
    """Bytes of a store that is a file."""
    files = [file for name in ("online.db*", "milvus.db*") for file in folder.rglob(name)]
    inside = [file for top in files for file in (top, *top.rglob("*"))]
    return sum(file.stat().st_size for file in set(inside) if file.is_file())


def items(path: Path, fields: list[Field]) -> FeatureView:
    """A view of the file."""
    source = FileSource(path=str(path), timestamp_field="event_timestamp")
    return FeatureView(name="items", entities=[ITEM], schema=fields, source=source)


def turns(
    sides: list[Side], path: Path, fields: list[Field], act: Callable[[FeatureStore], None]
) -> tuple[dict[Side, list[float]], dict[Side, int]]:
    """Let all sides do the same in turns: seconds and bytes on disk of each."""
    taken: dict[Side, list[float]] = {side: [] for side in sides}
    sizes = {}
    for number in range(ROUNDS):
        for kind, engine in sides:
            if number >= SLOW_ROUNDS and kind not in OURS:
                continue
            folder = path.parent / "store"
            store = feature_store(folder, kind, [items(path, fields)], engine)
            start = time.perf_counter()
            act(store)
            taken[kind, engine].append(time.perf_counter() - start)
            sizes[kind, engine] = disk(folder)
            store.teardown()
            shutil.rmtree(folder)
    return taken, sizes


def materialize(
    sides: list[Side], folder: Path, name: str, table: pa.Table, fields: list[Field]
) -> None:
    """Compare `feast materialize`."""
    path = folder / "items.parquet"
    write_file(path, table)
    day = timedelta(days=1)
    taken, sizes = turns(sides, path, fields, lambda store: store.materialize(NOW - day, NOW + day))
    print(f"\nmaterialize, {name}")
    report(table.num_rows, taken, sizes)


def report(rows: int, taken: dict[Side, list[float]], sizes: dict[Side, int]) -> None:
    """Print rows a second."""
    first = statistics.median(next(iter(taken.values())))
    for (kind, engine), seconds in taken.items():
        median = statistics.median(seconds)
        size = f"{sizes[kind, engine] / 1e6:>8.0f} MB" if sizes.get((kind, engine)) else ""
        side = f"{kind}, {'our' if engine == 'vector' else 'Feast'} engine"
        print(f"  {side:<26}{rows / median:>10,.0f} rows/s{first / median:>8.2f}x{size}")


def batch_of(rows: int) -> list[tuple]:
    """Rows as Feast hands them over, in any order."""
    table, _ = scalars(rows)
    order = np.random.default_rng(2).permutation(rows)
    columns = [table.column(name).to_pylist() for name in SCALARS]
    return [
        (
            EntityKey(join_keys=["id"], entity_values=[Value(int64_val=int(row))]),
            {n: Value(double_val=column[row]) for n, column in zip(SCALARS, columns, strict=True)},
            NOW,
            None,
        )
        for row in order
    ]


def write_batches(kinds: list[str], folder: Path) -> None:
    """Compare `online_write_batch` alone."""
    rows = 50_000
    data = batch_of(rows)
    path = folder / "items.parquet"
    table, fields = scalars(1)
    write_file(path, table)
    for size in BATCHES:

        def write(store: FeatureStore, size: int = size) -> None:
            view = store.get_feature_view("items")
            online = store._get_provider().online_store  # noqa: SLF001
            for first in range(0, rows, size):
                online.online_write_batch(store.config, view, data[first : first + size], None)

        taken, _ = turns([(kind, "local") for kind in kinds], path, fields, write)
        print(f"\nonline_write_batch, {rows:,} rows of 10 doubles in any order, {size:,} at a time")
        report(rows, taken, {})


def memory() -> None:
    """Peak memory of processes that materialize or write one batch, for several numbers of rows."""
    print("peak resident memory of a process, MB")
    for rows in (100_000, 250_000, 500_000, 1_000_000):
        peaks = [_peak_elsewhere(act, rows) for act in ("materialize", "read")]
        print(f"  materializing {rows:>9,} rows: {peaks[0]:,}; reading them by Feast: {peaks[1]:,}")
    for rows in (50_000, 100_000, 200_000):
        peaks = [_peak_elsewhere(act, rows) for act in ("batch", "protos")]
        print(f"  writing a batch of {rows:>7,} rows: {peaks[0]:,}; its protos: {peaks[1]:,}")


def _peak_elsewhere(act: str, rows: int) -> int:
    command = [sys.executable, __file__, "--peak", act, "--rows", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return int(done.stdout.split()[-1])


def peak(act: str, rows: int) -> None:
    """Do one thing in this process, and print its peak memory in MB."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "items.parquet"
        by_batch = act in {"batch", "protos"}
        table, fields = scalars(1 if by_batch else rows)
        write_file(path, table)
        del table
        store = feature_store(Path(temporary), "vector", [items(path, fields)], "vector")
        if by_batch:
            data = batch_of(rows)
            if act == "batch":
                view = store.get_feature_view("items")
                online = store._get_provider().online_store  # noqa: SLF001
                online.online_write_batch(store.config, view, data, None)
        else:
            if act == "read":
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
    with tempfile.TemporaryDirectory() as temporary, servers(Path(temporary)) as kinds:
        folder = Path(temporary)
        # Milvus takes no view without a vector.
        plain = [kind for kind in kinds if kind != "milvus"]
        write_batches(["vector", "nothing", *plain], folder)
        ours = [("nothing", "local"), ("vector", "vector"), ("vector", "local")]
        others = [(kind, "local") for kind in plain]
        rows = "100,000 rows of 10 doubles"
        materialize([*ours, *others], folder, rows, *scalars(100_000))
        others = [(kind, "local") for kind in kinds if kind in {"postgres", "milvus"}]
        rows = "50,000 rows of 384 floats, a text and two numbers"
        materialize([*ours, *others], folder, rows, *embeddings(50_000))


if __name__ == "__main__":
    main()
