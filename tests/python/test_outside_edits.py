"""Rows that another tool has deleted past the store are in no answer."""

import math

import numpy as np
import pytest
from conftest import at, integer, key, make_harness, sql_elsewhere, text, vector, vector_view
from feast import Field
from feast.types import Int64
from feast_vector import views

ROWS = 9000


@pytest.fixture
def store(tmp_path):
    harness = make_harness(tmp_path, text_search_enabled=True, index_builds="on_demand")
    view = vector_view(metric="L2", length=64)
    view.features.append(Field(name="number", dtype=Int64))
    points = np.random.default_rng(1).normal(size=(ROWS, 64))
    points[:, 0] = np.arange(ROWS) * 10
    harness.write(
        view,
        *(
            (
                key(id=i),
                {
                    "title": text("red lamp" if i % 2 else "red"),
                    "number": integer(i % 10),
                    "embedding": vector(*point),
                },
                at(0),
            )
            for i, point in enumerate(points)
        ),
    )
    return harness, view, points


@pytest.mark.parametrize("indexed", [False, True])
def test_a_row_that_is_not_there_is_never_answered(store, indexed):
    harness, view, points = store
    engine, declaration = (
        harness.store.engine(harness.config),
        views.declaration(harness.config, view),
    )
    if indexed:
        engine.optimize(declaration)
    query = list(points[0])
    passing = {"type": "lt", "key": "number", "value": 9}

    def ids(features, top_k, **options):
        rows, _ = engine.search(declaration, top_k=top_k, features=features, typed=True, **options)
        return rows.column("id").to_pylist()

    by_vector = {"feature": "embedding", "queries": np.array([query]), "metric": "L2"}
    assert ids([], 4, **by_vector) == [0, 1, 2, 3]
    assert ids([], 2, texts=["lamp"]) == [1, 3]
    assert harness.find_ids(view, query, filters=passing, top_k=3) == [0, 1, 2]
    sql_elsewhere(harness, "DELETE FROM shop_items WHERE row_id IN (1, 3, 4)")
    for features in ([], ["title"]):
        assert ids(features, 4, **by_vector) == [1, 4, 5, 6]
        assert ids(features, 2, texts=["lamp"]) == [1, 5]
        assert ids(features, 3, **by_vector, texts=["lamp"])[0] == 1
        assert not {0, 2, 3} & set(ids(features, 50, **by_vector, texts=["lamp red"]))
    assert harness.find_ids(view, query, filters=passing, top_k=3) == [1, 4, 5]
    # More than are found again and again; the rest comes back.
    sql_elsewhere(harness, "DELETE FROM shop_items WHERE row_id < 5000")
    assert ids([], 3, **by_vector) == [4999, 5000, 5001]
    assert set(ids(["title"], 10_000, texts=["lamp"])) == set(range(4999, ROWS, 2))
    # What is written again is there again.
    harness.write(view, (key(id=0), {"title": text("lamp"), "embedding": vector(*query)}, at(1)))
    assert ids([], 1, **by_vector) == [0]
    assert math.isclose(harness.find(view, query, top_k=1)[0][1]["distance"].float_val, 0)


def test_tiny_and_huge_cosine_queries_have_a_direction(tmp_path):
    harness = make_harness(tmp_path, index_builds="on_demand")
    view = vector_view(metric="cosine", length=16)
    points = np.random.default_rng(2).normal(size=(20_000, 16)).astype("f4").astype("f8")
    harness.write(
        view, *((key(id=i), {"embedding": vector(*point)}, at(0)) for i, point in enumerate(points))
    )
    engine, declaration = (
        harness.store.engine(harness.config),
        views.declaration(harness.config, view),
    )
    for _ in range(2):
        expected = harness.find_ids(view, list(points[3]), top_k=5)
        for size in (1e-30, 1e-46, 1e-310, 1e30):
            assert harness.find_ids(view, list(points[3] * size), top_k=5) == expected
        assert len(harness.find_ids(view, list(points[3] * 5e-324), top_k=5)) == 5
        for wrong in ([0.0] * 16, [math.nan] * 16, [math.inf] + [1.0] * 15):
            with pytest.raises(ValueError, match=r"all zeros|finite"):
                harness.find_ids(view, wrong)
        engine.optimize(declaration)


@pytest.mark.parametrize("index_type", ["flat", "ivf"])
@pytest.mark.parametrize("share", [0.5, 0.99, 1.0])
def test_vectors_of_zeros_are_found_as_an_exact_search_finds_them(tmp_path, index_type, share):
    harness = make_harness(tmp_path, index_builds="on_demand")
    view = vector_view(metric="cosine", length=64)
    view.features[1].tags = {"feast_vector.index_type": index_type}
    draw = np.random.default_rng(3)
    points = draw.normal(size=(9000, 64))
    points[draw.random(9000) < share] = 0
    points[5] = 1e-38
    harness.write(
        view, *((key(id=i), {"embedding": vector(*point)}, at(0)) for i, point in enumerate(points))
    )
    engine, declaration = (
        harness.store.engine(harness.config),
        views.declaration(harness.config, view),
    )
    engine.optimize(declaration)
    harness.write(view, (key(id=7), {"embedding": vector(*([0] * 64))}, at(1)))
    found = dict.fromkeys((1, 10, 100, 6000, 9000), 0)
    queries = draw.normal(size=(20, 1, 64))
    for query in queries:
        for top_k in found:
            answers = [
                engine.search(
                    declaration,
                    feature="embedding",
                    queries=query,
                    metric="cosine",
                    top_k=top_k,
                    exact=exact,
                    features=[],
                    typed=True,
                )[0]
                for exact in (True, False)
            ]
            assert answers[0].num_rows == answers[1].num_rows
            exact, ours = (set(answer.column("id").to_pylist()) for answer in answers)
            found[top_k] += len(exact & ours)
            if top_k > 1000:
                assert exact == ours
            if share == 1.0:
                assert answers[0].equals(answers[1])
    # The index looks for 99 % of the nearest, on average.
    for top_k, rows in found.items():
        assert rows >= 0.95 * top_k * len(queries) - 1, found
