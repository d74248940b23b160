"""`get_online_features` by entity key, against other stores and one that does nothing.

`python benches/reads.py` (or `make bench-stores`). All sides answer in turns in one process, and
medians are compared, because machines are noisy. The store that does nothing has its answer ready
and is read Feast's own way: what it takes is the floor of every store that is read so.
"""

from __future__ import annotations

import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import feast_vector
import numpy as np
import pandas as pd
from feast import FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64
from stores import ITEM, NOW, SCALARS, feature_store, servers

ROWS = 100_000
ENTITIES = (1, 10, 100, 1000)
ROUNDS = {1: 40, 10: 30, 100: 12, 1000: 4}
BURST = 10
SLOW_BURST = 3
VIEWS = 5


def filled(folder: Path, kind: str, views: int) -> FeatureStore:
    """A store with views of ten numbers."""
    folder.mkdir()
    path = folder / "items.parquet"
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({name: rng.random(ROWS) for name in SCALARS})
    frame["id"] = range(ROWS)
    frame["event_timestamp"] = NOW
    frame.head(1).to_parquet(path)
    source = FileSource(path=str(path), timestamp_field="event_timestamp")
    schema = [Field(name=name, dtype=Float64) for name in SCALARS]
    names = [f"view{i}" for i in range(views)]
    declared = [FeatureView(name=n, entities=[ITEM], schema=schema, source=source) for n in names]
    store = feature_store(folder, kind, declared)
    for name in names:
        for start in range(0, ROWS, 20_000):
            store.write_to_online_store(name, frame.iloc[start : start + 20_000])
    return store


def answer_times(
    stores: dict[str, FeatureStore], views: int, entities: int
) -> dict[str, list[float]]:
    """Milliseconds of many calls of each store, in bursts in turns."""
    rng = np.random.default_rng(1)
    features = [f"view{i}:{name}" for i in range(views) for name in SCALARS]
    taken: dict[str, list[float]] = {name: [] for name in stores}
    for _ in range(ROUNDS[entities]):
        for name, store in stores.items():
            # The first call of a burst is left out: Feast remembers what it has found in the
            # registry for one store at a time.
            for call in range((BURST if name in {"nothing", "vector"} else SLOW_BURST) + 1):
                rows = {"id": rng.integers(0, ROWS, entities).tolist()}
                start = time.perf_counter()
                store.get_online_features(features, rows, full_feature_names=True)
                if call > 0:
                    taken[name].append((time.perf_counter() - start) * 1e3)
    return taken


def compare(stores: dict[str, FeatureStore], views: int) -> None:
    """Print the times of all stores."""
    print(f"\nget_online_features, {views} views of {ROWS:,} rows, {len(SCALARS)} doubles each")
    print("p50 / p99 in ms, and p50 against the store that does nothing")
    for entities in ENTITIES:
        taken = answer_times(stores, views, entities)
        floor = statistics.median(taken["nothing"])
        for name, times in taken.items():
            median, worst = statistics.median(times), float(np.percentile(times, 99))
            ratio = median / floor
            print(f"  {entities:>5} {name:<10}{median:>9.3f} /{worst:>9.3f}{ratio:>8.2f}")


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


def concurrency(store: FeatureStore) -> None:
    """Readers in threads, alone and while another process writes without a pause."""
    view = feast_vector.open_view(store, "view0")
    writer = (
        "import sys, pickle, pandas as pd; from feast import FeatureStore\n"
        "store = FeatureStore(config=pickle.load(sys.stdin.buffer))\n"
        f"frame = pd.DataFrame({{name: range(5000) for name in {['id', *SCALARS]}}}, dtype=float)\n"
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
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", writer], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            process.stdin.write(pickle.dumps(store.config))
            process.stdin.close()
            process.stdout.readline()
        rounds = [[reads_a_second(view, count) for count in counts] for _ in range(5)]
        figures[kind] = [statistics.median(taken) for taken in zip(*rounds, strict=True)]
        if process:
            process.kill()
            process.wait()
    print(f"\nnative reads of 100 keys a second, by {' / '.join(map(str, counts))} threads")
    for kind, rates in figures.items():
        print(f"  {kind:<16}{' / '.join(f'{rate:,.0f}' for rate in rates)}")


def first_answers(stores: dict[str, FeatureStore]) -> None:
    """New processes that ask once: until they have the answer, imports of the store aside."""
    script = (
        "import sys, time, pickle, feast; config = pickle.load(sys.stdin.buffer)\n"
        "start = time.perf_counter()\n"
        "store = feast.FeatureStore(config=config)\n"
        "store.get_online_features(['view0:f0', 'view0:f1'], [{'id': 7}])\n"
        "print((time.perf_counter() - start) * 1e3)"
    )
    print("\nfirst answer of a new process, ms, after Feast and the store are imported")
    taken: dict[str, list[float]] = {name: [] for name in stores}
    for _ in range(5):
        for name, store in stores.items():
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-c", script],
                input=pickle.dumps(store.config),
                capture_output=True,
                check=True,
            )
            taken[name].append(float(done.stdout.split()[-1]))
    for name, times in taken.items():
        print(f"  {name:<10}{statistics.median(times):>9.0f}")


def main() -> None:
    """Run all."""
    with tempfile.TemporaryDirectory() as temporary, servers(Path(temporary)) as kinds:
        folder = Path(temporary)
        stores = {kind: filled(folder / kind, kind, VIEWS) for kind in ("nothing", "vector")}
        # Milvus takes no view without a vector.
        others = {k: filled(folder / k, k, 1) for k in kinds if k != "milvus"}
        compare({**stores, **others}, 1)
        compare(stores, VIEWS)
        first_answers({"vector": stores["vector"], **others})
        concurrency(stores["vector"])


if __name__ == "__main__":
    main()
