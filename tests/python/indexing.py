"""Stores with vector indexes: filling, searching and checking them."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import at, key, text, vector_view
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from feast_vector import views

# 1 KiB a vector: an index is worth it from 2 MiB on.
DIM = 256
ROWS = 3000


def vectors(count, seed=0, clusters=40):
    """Vectors around a few centres, which are the same for every seed."""
    centres = np.random.default_rng(99).standard_normal((clusters, DIM))
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, DIM)) * 0.6
    return (centres[rng.integers(0, clusters, count)] + noise).astype("float32")


def make_index_view(metric="L2", **tags):
    """A view whose vectors are indexed."""
    view = vector_view(length=DIM, metric=metric)
    view.features[-1].tags.update({f"feast_vector.{name}": tag for name, tag in tags.items()})
    return view


VIEW = make_index_view()


def fill(harness, rows, first=0, view=VIEW, minute=0):
    """Write vectors under ids from `first` on."""
    batch = [
        (
            key(id=first + i),
            {"title": text(f"t{first + i}"), "embedding": Value(float_list_val=FloatList(val=row))},
            at(minute),
        )
        for i, row in enumerate(rows)
    ]
    harness.write(view, *batch)


def engine_and_view(harness, view=VIEW):
    """The core, to ask it directly."""
    return harness.store.engine(harness.config), views.declaration(harness.config, view)


def find(harness, query, view=VIEW, top_k=10, exact=False):
    """Ids and distances of the nearest rows, and how they were found."""
    engine, declaration = engine_and_view(harness, view)
    batch, explanation = engine.search(
        declaration,
        top_k=top_k,
        feature="embedding",
        queries=np.asarray(query, dtype="float64")[np.newaxis],
        metric=view.features[-1].vector_search_metric,
        features=[],
        exact=exact,
        explain=True,
        typed=True,
    )
    found = list(zip(batch["id"].to_pylist(), batch["distance"].to_pylist(), strict=True))
    return found, json.loads(explanation)


def optimize(harness, view=VIEW):
    """Build the index now."""
    engine, declaration = engine_and_view(harness, view)
    return json.loads(engine.optimize(declaration))["embedding"]


def segments(harness, view=VIEW):
    """The index's files."""
    engine, declaration = engine_and_view(harness, view)
    indexes = json.loads(engine.indexes(declaration))
    return [Path(segment["file"]) for index in indexes for segment in index["segments"]]


def until(condition, seconds=60):
    """Wait for something that is under way."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def check(harness, model, queries, view=VIEW, floor=0.97):
    """What is found is right, and nearly all that is there to be found."""
    ids = np.array(sorted(model))
    matrix = np.array([model[i] for i in ids], dtype="float64")
    hits = total = 0
    for query in queries:
        found, _ = find(harness, query, view)
        true = np.sqrt(((matrix - query.astype("float64")) ** 2).sum(1))
        worst = np.sort(true)[min(10, len(ids)) - 1]
        by_id = dict(zip(ids.tolist(), true.tolist(), strict=True))
        assert len(found) == min(10, len(ids))
        for row, distance in found:
            assert row in by_id, "a row that is not there"
            assert distance == pytest.approx(by_id[row], abs=1e-4), "an old vector"
        hits += sum(distance <= worst + 1e-6 for _, distance in found)
        total += len(found)
    assert hits / max(total, 1) >= floor
