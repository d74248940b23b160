"""Cold start and memory of vector search: a new process that opens what is on disk and asks once.

`python benches/cold_start.py` (needs the peers of `make bench-peers`), on `minilm_100k.f16.npy` in
`PEERS_DATA` or on vectors that it makes. Each engine builds, saves, and is opened by new processes:
milliseconds from before it is opened until the first answer, its import aside, and then the
anonymous and file-backed memory that this has added; medians of 5.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROUNDS = 5
ENGINES = ("ours", "hnswlib", "usearch", "faiss HNSW", "faiss IVF-PQ-FastScan")


def vectors() -> np.ndarray:
    """Unit vectors."""
    path = Path(os.environ.get("PEERS_DATA", ".")) / "minilm_100k.f16.npy"
    if path.exists():
        rows = np.load(path).astype(np.float32)
    else:
        rows = np.random.default_rng(0).standard_normal((100_000, 384), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build(engine: str, folder: Path, rows: np.ndarray) -> None:
    """Build and save."""
    dim = rows.shape[1]
    if engine == "hnswlib":
        import hnswlib

        index = hnswlib.Index("cosine", dim)
        index.init_index(len(rows), M=16, ef_construction=200)
        index.add_items(rows)
        index.save_index(str(folder / "index"))
    elif engine == "usearch":
        from usearch.index import Index

        index = Index(ndim=dim, metric="cos")
        index.add(np.arange(len(rows)), rows)
        index.save(str(folder / "index"))
    elif engine.startswith("faiss"):
        import faiss

        kind = "HNSW32" if "HNSW" in engine else f"IVF1024,PQ{dim // 2}x4fs,RFlat"
        index = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(rows)
        index.add(rows)
        faiss.write_index(index, str(folder / "index"))
    else:
        ours(folder, rows)


def ours(folder: Path, rows: np.ndarray) -> None:
    """A feature store with the vectors, indexed."""
    import feast_vector
    import materialize
    import pyarrow as pa
    from feast import Field
    from feast.types import Array, Float32

    dim = rows.shape[1]
    lists = pa.FixedSizeListArray.from_arrays(rows.ravel(), dim)
    table = pa.table({"v": lists, "id": range(len(rows))})
    times = pa.array([materialize.NOW] * len(rows), pa.timestamp("us", "UTC"))
    table = table.append_column("event_timestamp", times)
    field = Field(
        name="v",
        dtype=Array(Float32),
        vector_index=True,
        vector_length=dim,
        vector_search_metric="cosine",
    )
    path = folder / "items.parquet"
    materialize.write_file(path, table.select(["v"]).slice(0, 1))
    store = materialize.feature_store(folder, "ours, our engine", path, [field])
    view = feast_vector.open_view(store, "items")
    view.write_arrow(table)
    view.optimize()
    (folder / "feature_store.yaml").write_text(
        "project: bench\nprovider: local\nregistry: registry.db\n"
        "entity_key_serialization_version: 3\n"
        "online_store:\n  type: vector\n  path: online.db\n  index_builds: on_demand\n"
    )


def memory() -> tuple[int, int]:
    """Anonymous and file-backed memory of this process, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = dict(line.split(":", 1) for line in lines)
    return int(kib["RssAnon"].split()[0]), int(kib["RssFile"].split()[0])


def first_answer(engine: str, folder: Path, query: np.ndarray) -> None:
    """Open, ask once, and print what it took."""
    if engine == "ours":
        import feast_vector
        from feast import FeatureStore

        store = FeatureStore(folder)
        store.registry.get_feature_view("items", "bench")
    elif engine == "hnswlib":
        import hnswlib
    elif engine == "usearch":
        from usearch.index import Index
    else:
        import faiss
    before = memory()
    start = time.perf_counter()
    # Held until the memory is looked at.
    if engine == "ours":
        index = feast_vector.open_view(store, "items")
        index.search(query, 10, features=[])
    elif engine == "hnswlib":
        index = hnswlib.Index("cosine", len(query))
        index.load_index(str(folder / "index"))
        index.knn_query(query, 10)
    elif engine == "usearch":
        index = Index.restore(str(folder / "index"), view=True)
        index.search(query, 10)
    else:
        index = faiss.read_index(str(folder / "index"))
        index.search(query[None], 10)
    taken = (time.perf_counter() - start) * 1e3
    added = [(now - then) / 1024 for now, then in zip(memory(), before, strict=True)]
    del index
    print(json.dumps([taken, *added]))


def main() -> None:
    """Run all, or one side of one."""
    if len(sys.argv) > 1:
        engine, folder = sys.argv[1:]
        first_answer(engine, Path(folder), np.load(Path(folder) / "query.npy"))
        return
    rows = vectors()
    print(f"{len(rows):,} x {rows.shape[1]}: first answer ms, MB anonymous, MB of files")
    for engine in ENGINES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            np.save(folder / "query.npy", rows[7])
            build(engine, folder, rows)
            found = []
            for _ in range(ROUNDS):
                command = [sys.executable, "-W", "ignore", __file__, engine, str(folder)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
                found.append(json.loads(done.stdout.splitlines()[-1]))
            medians = [statistics.median(column) for column in zip(*found, strict=True)]
            print(f"  {engine:<24}" + "".join(f"{number:>10.1f}" for number in medians), flush=True)


if __name__ == "__main__":
    main()
