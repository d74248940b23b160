"""Crash images: what a killed process, or a cut of the power, may leave of a store's files.

A workload runs in a process whose calls that change files are recorded (`crash_record.c`), data
included. `images` then replays the record: after every operation, the files as a killed process
leaves them; and, of a cut of the power, as an honest disk may leave them: what was synced is there,
and of what was written since then any part, in blocks of 512 bytes. Names of files are taken to
survive in order, as on journaling file systems.
"""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
from feast_vector.errors import FeastVectorError

HERE = Path(__file__).parent
HEAD = struct.Struct("<BHQI")
CREATE, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, LINK = range(1, 8)
LEDGER = "ledger"
DIM = 256
BULK = 2_200
"""Rows of the first batch: enough for an index."""
SMALL = 12


def library(folder):
    """Compile what records."""
    target = Path(folder) / "crash_record.so"
    subprocess.run(
        [
            "cc",
            "-O1",
            "-shared",
            "-fPIC",
            HERE / "crash_record.c",
            "-o",
            target,
            "-ldl",
            "-lpthread",
        ],
        check=True,
    )
    return target


def record(folder, seed, durability):
    """Run the workload in another process, and give its operations."""
    store, log = Path(folder) / "store", Path(folder) / "log"
    store.mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import crash_images;"
        f"crash_images.workload({str(store)!r}, {seed}, {durability!r})"
    )
    preload = {
        "LD_PRELOAD": str(library(folder)),
        "CRASH_FOLDER": str(store),
        "CRASH_LOG": str(log),
    }
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **preload})
    return list(operations(log.read_bytes()))


def operations(log):
    """Cut a record into (operation, path, offset, data)."""
    at = 0
    while at < len(log):
        operation, name, offset, size = HEAD.unpack_from(log, at)
        at += HEAD.size
        path = log[at : at + name].decode()
        yield operation, path, offset, log[at + name : at + name + size]
        at += name + size


# --- the workload


def vector(row, batch):
    """The embedding that a batch gives a row."""
    return np.random.default_rng((row, batch)).normal(size=DIM).astype("f4")


def steps(seed):
    """What the workload does: (what, ids), the same for the same seed."""
    chance = random.Random(seed)
    yield "write", list(range(BULK))
    yield "optimize", []
    for _ in range(14):
        what = chance.choice(["write", "write", "write", "delete", "optimize"])
        many = chance.choice([1, SMALL, 10 * SMALL])
        yield what, chance.sample(range(BULK + 200), many) if what != "optimize" else []
    yield "optimize", []
    yield "write", chance.sample(range(BULK + 200), SMALL)


def open_native(harness, view):
    """A view by the native API, without a registry."""
    from feast_vector.native import VectorView

    registry = type("Registry", (), {"get_any_feature_view": lambda *_, **__: view})
    provider = type("Provider", (), {"online_store": harness.store})
    store = type("Store", (), {"_get_provider": lambda _: provider()})()
    store.config, store.project = harness.config, harness.config.project
    store.registry = registry()
    return VectorView(store, view.name)


def view_of(folder, durability):
    """The view of the workload's store, as a client of its own opens it."""
    from conftest import make_harness, vector_view

    harness = make_harness(
        Path(folder),
        kind="vector",
        durability=durability,
        index_builds="on_demand",
        text_search_enabled=True,
    )
    return harness, open_native(harness, vector_view(length=DIM, metric="L2"))


def table_of(ids, batch):
    """The rows of a batch, as Arrow."""
    import pyarrow as pa

    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "title": [title(row, batch) for row in ids],
            "embedding": pa.array([vector(row, batch) for row in ids], pa.list_(pa.float32())),
            "event_timestamp": pa.array([batch] * len(ids), pa.timestamp("s", "UTC")),
        }
    )


def title(row, batch):
    """The title that a batch gives a row."""
    return f"row {row} of batch{batch}"


def workload(folder, seed, durability):
    """Write, delete and index; say in the ledger what was begun and what acknowledged."""
    _, view = view_of(folder, durability)
    ledger = os.open(Path(folder) / LEDGER, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(*words):
        os.write(ledger, (json.dumps(words) + "\n").encode())

    for batch, (what, ids) in enumerate(steps(seed), 1):
        say("begin", batch)
        if what == "write":
            view.write_arrow(table_of(ids, batch))
        elif what == "delete":
            view.delete(ids)
        else:
            view.optimize()
        say("acknowledged", batch)
    os._exit(0)


def states(seed):
    """The rows after each batch: a dict of id to batch, by the number of batches done."""
    rows, all_states = {}, [{}]
    for batch, (what, ids) in enumerate(steps(seed), 1):
        rows = dict(rows)
        for row in ids:
            if what == "write":
                rows[row] = batch
            else:
                rows.pop(row, None)
        all_states.append(rows)
    return all_states


# --- images


class Disk:
    """Files as the process sees them, and what of them is synced."""

    def __init__(self):
        self.files = {}
        self.synced = {}
        self.pending = defaultdict(list)

    def apply(self, operation, path, offset, data):
        if operation == CREATE:
            self.files.setdefault(path, bytearray())
            self.synced.setdefault(path, b"")
        elif operation == WRITE:
            put(self.files[path], offset, data)
            self.pending[path].append((offset, data))
        elif operation == TRUNCATE:
            cut(self.files[path], offset)
            self.pending[path].append((offset, None))
        elif operation == SYNC:
            if path not in self.files:
                return  # a folder
            self.synced[path] = bytes(self.files[path])
            self.pending[path].clear()
        elif operation in {RENAME, LINK}:
            target = data.decode()
            for files in (self.files, self.synced, self.pending):
                if path in files:
                    files[target] = (
                        files[path] if operation == RENAME else type(files[path])(files[path])
                    )
                    if operation == RENAME:
                        del files[path]
        else:
            for files in (self.files, self.synced, self.pending):
                files.pop(path, None)

    def killed(self):
        """The files as a killed process leaves them."""
        return {path: bytes(content) for path, content in self.files.items()}

    def cut_off(self, chance):
        """The files after a cut of the power: of what was not synced, any part."""
        image = {}
        share = chance.choice([0.0, 0.5, 0.9, 1.0])
        for path in self.files:
            content = bytearray(self.synced.get(path, b""))
            for offset, data in self.pending[path]:
                if data is None:
                    if chance.random() < share:
                        cut(content, offset)
                    continue
                for start in range(0, len(data), 512):
                    if chance.random() < share:
                        put(content, offset + start, data[start : start + 512])
            image[path] = bytes(content)
        return image


def put(content, offset, data):
    """Write into a file's bytes."""
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def cut(content, size):
    """Truncate or extend a file's bytes."""
    del content[size:]
    content.extend(bytes(size - len(content)))


def images(log, chosen, chance, *, power):
    """Replay: (operation's number, batches acknowledged, batches begun, files) of chosen points."""
    disk, done, begun = Disk(), 0, 0
    for number, (operation, path, offset, data) in enumerate(log):
        if path == LEDGER:
            if operation == WRITE:
                what, batch = json.loads(data)
                done, begun = (done, batch) if what == "begin" else (batch, batch)
            continue
        if path.endswith(("-shm", ".lock")):
            if operation == CREATE:
                disk.apply(operation, path, offset, data)
            continue
        disk.apply(operation, path, offset, data)
        if number in chosen:
            yield number, done, begun, disk.cut_off(chance) if power else disk.killed()


# --- checking


def check(folder, image, batches, all_states, durability):
    """Open an image: it is as after one of these numbers of batches, and searches agree with it."""
    folder = Path(folder)
    for path, content in image.items():
        if path.endswith("-shm"):
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    harness, view = view_of(folder, durability)
    try:
        found = view.read(list(range(BULK + 200)), ["title", "embedding"])
        titles = found.column("title").to_pylist()
        rows = {row: name for row, name in enumerate(titles) if name is not None}
        allowed = [all_states[number] for number in batches]
        named = [{row: title(row, batch) for row, batch in state.items()} for state in allowed]
        assert rows in named, difference(rows, named[0])
        state = allowed[named.index(rows)]
        vectors = found.column("embedding")
        for row, batch in list(state.items())[::97]:
            assert np.array_equal(vectors[row].as_py(), vector(row, batch)), row
        check_searches(view, state)
    finally:
        import asyncio

        asyncio.run(harness.store.close())


def check_searches(view, state):
    """Searches by vector, exact and not, and by text agree with the rows."""
    if not state:
        return
    ids = np.array(sorted(state))
    query = vector(10**6, 1)
    known = np.stack([_vectors(row, state[row]) for row in ids.tolist()])
    distances = np.linalg.norm(known - query, axis=1)
    nearest = ids[np.argsort(distances, kind="stable")[:5]].tolist()
    exact = view.search(query, 5, exact=True, features=[], as_dict=True)
    assert exact["id"] == nearest
    best = view.search(query, 5, features=[], as_dict=True)
    assert best["id"][0] == nearest[0]
    assert len(set(best["id"]) & set(nearest)) >= 4
    batch = max(state.values())
    worded = view.search(text=f"batch{batch}", top_k=10_000, features=[], as_dict=True)["id"]
    assert sorted(worded) == [row for row in ids.tolist() if state[row] == batch]


_known = {}


def _vectors(row, batch):
    if (row, batch) not in _known:
        _known[row, batch] = vector(row, batch)
    return _known[row, batch]


def difference(rows, wanted):
    """What is wrong, in a line."""
    wrong = {row for row in rows.keys() | wanted.keys() if rows.get(row) != wanted.get(row)}
    some = [(row, rows.get(row), wanted.get(row)) for row in sorted(wrong)[:3]]
    return f"{len(wrong)} of {len(wanted)} rows differ from the acknowledged ones, such as {some}"


def failures(log, seed, folder, count, durability, *, power):
    """Look at images of so many moments: what was wrong with which, and how many were looked at."""
    chance = random.Random(7)
    chosen = set(chance.sample(range(len(log)), min(count, len(log))))
    all_states, seen, lost = states(seed), 0, []
    for number, done, begun, image in images(log, chosen, chance, power=power):
        # After a cut of the power, `normal` may miss the last batches.
        oldest = 0 if power and durability == "normal" else done
        here = Path(folder) / str(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a damaged index is said, and not used
            try:
                check(here, image, range(oldest, begun + 1), all_states, durability)
            except (AssertionError, FeastVectorError) as error:
                lost.append(f"after operation {number}: {error}")
        shutil.rmtree(here)
        seen += 1
    return lost, seen
