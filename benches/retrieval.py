"""Filtered search by exact scan, text search and what the native call costs, over 100,000 rows.

`python benches/retrieval.py` (or `make bench`). Both sides of each comparison run in turns in one
process, and medians of many rounds are compared, because machines are noisy.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import feast_vector
import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64, String

ROWS = 100_000
DIM = 384
ROUNDS = 41
WORDS = 30_000
THREADS = (1, 2)

YAML = """
project: bench
provider: local
registry: registry.db
entity_key_serialization_version: 3
online_store:
  type: vector
  path: online.db
  text_search_enabled: true
  durability: normal
  search_threads: {threads}
"""


def frame(rng: np.random.Generator) -> pd.DataFrame:
    """Rows with unit vectors, a number for each percent, and texts of Zipf's law."""
    vectors = rng.standard_normal((ROWS, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranks = np.arange(1, WORDS + 1)
    chances = 1 / ranks / (1 / ranks).sum()
    words = rng.choice(WORDS, size=(ROWS, 20), p=chances)
    return pd.DataFrame(
        {
            "id": range(ROWS),
            "percent": rng.permutation(ROWS) % 100,
            "source": [f"source {i}" for i in rng.integers(0, 10, ROWS)],
            "text": [" ".join(f"w{word}" for word in row) for row in words],
            "embedding": list(vectors),
            "event_timestamp": pd.Timestamp.now(tz="UTC"),
        }
    )


def fill(folder: Path, rows: pd.DataFrame) -> None:
    """Write the rows to a new store."""
    (folder / "feature_store.yaml").write_text(YAML.format(threads=0))
    store = FeatureStore(folder)
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    rows.head(1).to_parquet(folder / "items.parquet")
    view = FeatureView(
        name="items",
        entities=[item],
        schema=[
            Field(name="percent", dtype=Int64),
            Field(name="source", dtype=String),
            Field(name="text", dtype=String),
            Field(
                name="embedding",
                dtype=Array(Float32),
                vector_index=True,
                vector_length=DIM,
                vector_search_metric="cosine",
            ),
        ],
        source=FileSource(path=str(folder / "items.parquet"), timestamp_field="event_timestamp"),
        tags={"feast_vector.text_features": "text"},
    )
    store.apply([item, view])
    for start in range(0, len(rows), 10_000):
        store.write_to_online_store("items", rows.iloc[start : start + 10_000])


def milliseconds(*calls):
    """Median time of each call, the calls in turns."""
    times = [[] for _ in calls]
    for call in calls:
        call(0)
    for round_ in range(ROUNDS):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call(round_)
            taken.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(taken) for taken in times]


def filtered(folder: Path, queries: np.ndarray) -> None:
    """Top 10 under filters against the unfiltered exact scan, in the same engine."""
    print(f"\nfiltered top 10 of {ROWS:,} x {DIM}, cosine; medians of {ROUNDS} rounds in turns")
    print(f"{'threads':>7} {'filter':<34} {'no filter ms':>12} {'filtered ms':>11} {'ratio':>6}")
    for threads in THREADS:
        (folder / "feature_store.yaml").write_text(YAML.format(threads=threads))
        view = feast_vector.open_view(FeatureStore(folder), "items")
        for name, wanted in {
            "1 %, integers": {"type": "lt", "key": "percent", "value": 1},
            "10 %, integers": {"type": "lt", "key": "percent", "value": 10},
            "50 %, integers": {"type": "lt", "key": "percent", "value": 50},
            "10 %, text": {"type": "eq", "key": "source", "value": "source 3"},
            "50 %, text": {
                "type": "in",
                "key": "source",
                "value": [f"source {i}" for i in range(5)],
            },
            "45 %, both": {
                "type": "and",
                "filters": [
                    {"type": "lt", "key": "percent", "value": 50},
                    {"type": "ne", "key": "source", "value": "source 3"},
                ],
            },
        }.items():
            plain, under = milliseconds(
                lambda i, view=view: view.search(queries[i], features=["percent"], exact=True),
                lambda i, view=view, wanted=wanted: view.search(
                    queries[i], features=["percent"], filters=wanted, exact=True
                ),
            )
            print(f"{threads:>7} {name:<34} {plain:>12.3f} {under:>11.3f} {under / plain:>6.2f}")


def texts(folder: Path, rows: pd.DataFrame, rng: np.random.Generator) -> None:
    """Top 10 by text: words drawn from the texts themselves, so common ones are often drawn."""
    print(f"\ntext top 10 of {ROWS:,} texts of 20 words; medians and worst of {ROUNDS} queries")
    print(f"{'query':<44} {'median ms':>9} {'worst ms':>9}")
    store = FeatureStore(folder)
    view = feast_vector.open_view(store, "items")
    for count in (1, 2, 4, 8):
        words = [
            rng.choice(rows["text"].iloc[i].split(), count, replace=False)
            for i in rng.integers(0, ROWS, ROUNDS)
        ]
        taken = []
        for query in words:
            start = time.perf_counter()
            view.search(text=" ".join(query), features=["percent"])
            taken.append((time.perf_counter() - start) * 1e3)
        name = f"{count} words of a text, any of them"
        print(f"{name:<44} {statistics.median(taken):>9.3f} {max(taken):>9.3f}")
    words = [f"w{i}" for i in range(5)]
    fresh = feast_vector.open_view(FeatureStore(folder), "items")
    fresh.search(text="none", features=["percent"])
    for name in ("the 5 commonest words, each alone", "the same once more, nothing written since"):
        taken = []
        for word in words:
            start = time.perf_counter()
            fresh.search(text=word, features=["percent"])
            taken.append((time.perf_counter() - start) * 1e3)
        print(f"{name:<44} {statistics.median(taken):>9.3f} {max(taken):>9.3f}")
    hybrid, vector = milliseconds(
        lambda i: view.search(
            rows["embedding"].iloc[i], text=" ".join(rows["text"].iloc[i].split()[:4])
        ),
        lambda i: view.search(rows["embedding"].iloc[i]),
    )
    print(f"{'vector and 4 words':<44} {hybrid:>9.3f}")
    print(f"{'the vector alone':<44} {vector:>9.3f}")


def overhead(name: str, folder: Path, queries: np.ndarray) -> None:
    """What Python, Arrow's way out and the lock of the interpreter add to the engine's own time."""
    view = feast_vector.open_view(FeatureStore(folder), "items")
    added, own = [], []
    for i in range(1000):
        start = time.perf_counter()
        query = queries[i % ROUNDS]
        _, explanation = view.search(query, features=["percent"], exact=True, explain=True)
        taken = (time.perf_counter() - start) * 1e6
        own.append(sum(explanation["microseconds"].values()))
        added.append(taken - own[-1])
    print(f"{name:<12} {statistics.median(own):>12.0f} {statistics.median(added):>10.0f}")


def batches(folder: Path, queries: np.ndarray) -> None:
    """Many queries in one call against one by one."""
    view = feast_vector.open_view(FeatureStore(folder), "items")
    together, alone = milliseconds(
        lambda _: view.search(queries, features=["percent"], exact=True),
        lambda _: [view.search(query, features=["percent"], exact=True) for query in queries],
    )
    print(
        f"\n{len(queries)} queries: {together:.1f} ms in one call, {alone:.1f} ms one by one, "
        f"{alone / together:.1f}x"
    )


def main() -> None:
    """Run all."""
    rng = np.random.default_rng(0)
    rows = frame(rng)
    queries = rng.standard_normal((ROUNDS, DIM))
    with tempfile.TemporaryDirectory() as large, tempfile.TemporaryDirectory() as small:
        start = time.perf_counter()
        fill(Path(large), rows)
        print(f"filled in {time.perf_counter() - start:.1f} s; kernels: {feast_vector._core.ISA}")  # noqa: SLF001
        fill(Path(small), rows.head(1000))
        filtered(Path(large), queries)
        (Path(large) / "feature_store.yaml").write_text(YAML.format(threads=0))
        texts(Path(large), rows, rng)
        print("\nnative call, one query, medians of 1,000; a large scan empties the CPU's caches")
        print(f"{'rows':<12} {'engine us':>12} {'added us':>10}")
        overhead("1,000", Path(small), queries)
        overhead(f"{ROWS:,}", Path(large), queries)
        batches(Path(large), queries)


if __name__ == "__main__":
    main()
