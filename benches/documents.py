"""`retrieve_online_documents_v2`, against Feast's embedded Milvus and a store that does nothing.

`python benches/documents.py` (or `make bench-stores`), on `minilm_100k.f16.npy` in `PEERS_DATA` or
on vectors that it makes. All are asked in turns in one process, through `FeatureStore`, for the ten
nearest rows and two of their features; ours by the native call too. The store that does nothing has
its answer ready. (Feast's sqlite store searches on Python 3.10 only, and copies every vector into
another table at each search. For Postgres pgvector would have to be there.)
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import feast_vector
import numpy as np
import pandas as pd
from feast import FeatureStore, FeatureView, Field, FileSource
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float32, Float64, String
from stores import ITEM, NOW, NothingOnlineStore, feature_store, installed

ROWS = 50_000
QUERIES = 500
TOP_K = 10
ROUNDS = 20
BURST = 10
METRICS = {"nothing": "cosine", "vector": "cosine", "milvus": "COSINE"}
FEATURES = ["items:title", "items:price"]

Ask = Callable[[np.ndarray], list[str]]
"""A search: the titles of what it finds."""


class NothingFound(NothingOnlineStore):
    """Answers the same ten rows."""

    def retrieve_online_documents_v2(self, *_, **__):
        """Give them."""
        key = EntityKey(join_keys=["id"], entity_values=[Value(int64_val=1)])
        row = {"title": Value(string_val="1"), "price": Value(double_val=1.5)}
        return [(NOW, key, {**row, "distance": Value(float_val=0.5)})] * TOP_K


def vectors() -> np.ndarray:
    """Unit vectors: rows, then queries."""
    path = Path(os.environ.get("PEERS_DATA", ".")) / "minilm_100k.f16.npy"
    if path.exists():
        found = np.load(path)[: ROWS + QUERIES].astype(np.float32)
    else:
        found = np.random.default_rng(0).standard_normal((ROWS + QUERIES, 384), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def filled(folder: Path, kind: str, rows: np.ndarray) -> FeatureStore:
    """A store with the vectors."""
    folder.mkdir()
    frame = pd.DataFrame(
        {
            "id": range(len(rows)),
            "title": [str(i) for i in range(len(rows))],
            "price": np.random.default_rng(0).random(len(rows)),
            "v": list(rows),
            "event_timestamp": NOW,
        }
    )
    frame.head(1).to_parquet(folder / "items.parquet")
    source = FileSource(path=str(folder / "items.parquet"), timestamp_field="event_timestamp")
    vector = Field(
        name="v",
        dtype=Array(Float32),
        vector_index=True,
        vector_length=rows.shape[1],
        vector_search_metric=METRICS[kind],
    )
    schema = [Field(name="title", dtype=String), Field(name="price", dtype=Float64), vector]
    view = FeatureView(name="items", entities=[ITEM], schema=schema, source=source)
    store = feature_store(folder, kind, [view])
    if kind == "nothing":
        store._get_provider().online_store.__class__ = NothingFound  # noqa: SLF001
        return store
    for start in range(0, len(rows), 5_000):
        store.write_to_online_store("items", frame.iloc[start : start + 5_000])
    return store


def by_feast(store: FeatureStore, metric: str) -> Ask:
    """Ask through Feast."""

    def ask(query: np.ndarray) -> list[str]:
        found = store.retrieve_online_documents_v2(
            features=FEATURES, query=query.tolist(), top_k=TOP_K, distance_metric=metric
        )
        return found.to_dict()["title"]

    return ask


def natively(store: FeatureStore) -> Ask:
    """Ask our native call."""
    view = feast_vector.open_view(store, "items")

    def ask(query: np.ndarray) -> list[str]:
        found = view.search(query, top_k=TOP_K, features=["title", "price"])
        return found.column("title").to_pylist()

    return ask


def main() -> None:
    """Run all."""
    both = vectors()
    rows, queries = both[:ROWS], both[ROWS:]
    nearest = np.argsort(-(queries @ rows.T), axis=1)[:, :TOP_K]
    kinds = [kind for kind in METRICS if kind in {"nothing", "vector", *installed()}]
    with tempfile.TemporaryDirectory() as temporary:
        stores = {kind: filled(Path(temporary) / kind, kind, rows) for kind in kinds}
        feast_vector.open_view(stores["vector"], "items").optimize()
        asks = {kind: by_feast(store, METRICS[kind]) for kind, store in stores.items()}
        asks["vector, natively"] = natively(stores["vector"])
        taken: dict[str, list[float]] = {name: [] for name in asks}
        hits = dict.fromkeys(asks, 0)
        for number in range(ROUNDS):
            for name, ask in asks.items():
                # The first call is left out: Feast remembers the registry of one store at a time.
                for call in range(-1, 2 if name == "milvus" else BURST):
                    at = (number * BURST + call) % QUERIES
                    start = time.perf_counter()
                    titles = ask(queries[at])
                    if call >= 0:
                        taken[name].append((time.perf_counter() - start) * 1e3)
                        hits[name] += len(set(map(int, titles)) & set(nearest[at].tolist()))
    print(f"retrieve_online_documents_v2, {TOP_K} of {ROWS:,} x {rows.shape[1]}, p50 / p99 in ms")
    for name, times in taken.items():
        recall = hits[name] / (TOP_K * len(times))
        median, worst = statistics.median(times), float(np.percentile(times, 99))
        shown = "" if name == "nothing" else f"   recall {recall:.3f}"
        print(f"  {name:<18}{median:>9.3f} /{worst:>9.3f}{shown}")


if __name__ == "__main__":
    main()
