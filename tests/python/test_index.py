"""Vector indexes: what is found by them is what is there, whatever happens meanwhile."""

import warnings

import numpy as np
import pytest
from conftest import at, integer, key, make_harness, vector_view
from feast import Field
from feast.filter_models import ComparisonFilter
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from feast.types import Array, Float64, Int64
from feast_vector import protos
from indexing import (
    DIM,
    ROWS,
    VIEW,
    check,
    engine_and_view,
    fill,
    find,
    make_index_view,
    optimize,
    segments,
    until,
    vectors,
)


@pytest.fixture
def filled(harness):
    """A store with an index that is up to date."""
    fill(harness, vectors(ROWS))
    assert optimize(harness)["rows"] == ROWS
    return harness


def test_an_index_comes_by_itself_and_answers_as_the_exact_scan_does(harness):
    data, queries = vectors(ROWS), vectors(50, seed=1)
    fill(harness, data)
    model = dict(enumerate(data))
    check(harness, model, queries[:5], floor=1)
    until(lambda: segments(harness))
    check(harness, model, queries)
    _, explanation = find(harness, queries[0])
    assert explanation["strategy"] == "index"
    assert explanation["vectors_in_no_segment"] == 0
    assert explanation["codes_scanned"] == ROWS
    assert explanation["codes_refined"] < ROWS / 4
    assert explanation["vectors_measured"] < 60
    found, explanation = find(harness, queries[0], exact=True)
    assert explanation["strategy"] == "exact scan of all vectors"
    assert [row for row, _ in found] == [row for row, _ in find(harness, queries[0])[0]]


def test_few_vectors_need_no_index(harness):
    fill(harness, vectors(100))
    assert optimize(harness) is None
    assert segments(harness) == []
    assert find(harness, vectors(1, seed=1)[0])[1]["strategy"].startswith("exact")


def test_what_another_process_writes_is_found_at_once(filled, tmp_path):
    other = make_harness(tmp_path)
    model = dict(enumerate(vectors(ROWS)))
    queries = vectors(6, seed=2)
    for step, query in enumerate(queries):
        assert find(filled, query)[1]["segments"] == 1
        # Written anew, written first, and deleted.
        fill(other, query[np.newaxis], first=step * 7, minute=1)
        fill(other, query[np.newaxis] + 0.01, first=ROWS + step, minute=1)
        nearest = find(filled, query)[0]
        assert [row for row, _ in nearest[:2]] == [step * 7, ROWS + step]
        engine, declaration = engine_and_view(other)
        gone = nearest[2][0]
        assert engine.delete(declaration, protos.serialize_keys([key(id=gone)])) == 1
        assert gone not in [row for row, _ in find(filled, query)[0]]
        model |= {step * 7: query, ROWS + step: query + 0.01}
        del model[gone]
    check(filled, model, queries)
    assert optimize(other)["rows"] == len(model)
    check(filled, model, queries)
    check(filled, model, vectors(20, seed=3))


def test_what_the_index_knows_of_a_row_is_what_the_table_says(filled):
    anew = vectors(20, seed=4)
    fill(filled, anew, first=7, minute=1)
    engine, declaration = engine_and_view(filled)
    for query in anew:
        answers = [
            engine.search(
                declaration,
                top_k=200,
                feature="embedding",
                queries=query[np.newaxis].astype("float64"),
                metric="L2",
                features=features,
                typed=typed,
            )[0]
            for features in ([], ["title"])
            for typed in (True, False)
        ]
        for without, having in zip(answers[:2], answers[2:], strict=True):
            assert without.num_rows == 200
            assert having.select(without.schema.names).equals(without)
        assert len(set(answers[0]["event_timestamp"].to_pylist())) == 2


def test_it_is_right_through_everything_that_happens(harness, tmp_path):
    rng = np.random.default_rng(5)
    other = make_harness(tmp_path)
    model = {}
    for step in range(24):
        minute = step + 1
        writer = other if rng.random() < 0.5 else harness
        action = rng.choice(["much", "little", "delete", "optimize", "reopen", "overwrite"])
        if action in ("much", "little") or not model:
            count = 2100 if action == "much" else 40
            first = int(rng.integers(0, 5000))
            data = vectors(count, seed=100 + step)
            fill(writer, data, first=first, minute=minute)
            model |= dict(zip(range(first, first + count), data, strict=True))
        elif action == "overwrite":
            chosen = rng.choice(sorted(model), size=200)
            for row, data in zip(chosen.tolist(), vectors(200, seed=step), strict=True):
                model[row] = data
            engine_rows = sorted(set(chosen.tolist()))
            batch = [
                (
                    key(id=row),
                    {"embedding": Value(float_list_val=FloatList(val=model[row]))},
                    at(minute),
                )
                for row in engine_rows
            ]
            writer.write(VIEW, *batch)
        elif action == "delete":
            engine, declaration = engine_and_view(writer)
            chosen = rng.choice(sorted(model), size=min(300, len(model) - 20), replace=False)
            engine.delete(declaration, protos.serialize_keys([key(id=int(row)) for row in chosen]))
            for row in chosen.tolist():
                del model[row]
        elif action == "optimize":
            optimize(writer)
        else:
            engine_and_view(harness)[0].close()
        queries = vectors(4, seed=1000 + step)
        check(harness, model, queries)
        check(other, model, queries)
    optimize(harness)
    check(other, model, vectors(40, seed=7))


def test_growth_merges_segments_and_clears_up(harness):
    for step in range(8):
        fill(harness, vectors(2100, seed=step), first=step * 2100)
        before = len(segments(harness))
        until(lambda: find(harness, np.ones(DIM))[1]["vectors_in_no_segment"] == 0)
        assert len(segments(harness)) <= max(4, before + 1)
    folder = segments(harness)[0].parent
    until(lambda: sorted(folder.iterdir()) == sorted(segments(harness)))


def test_dropping_and_making_anew(filled, tmp_path):
    query = vectors(1, seed=4)[0]
    folder = segments(filled)[0].parent
    filled.update(delete=[VIEW])
    assert find(filled, query)[0] == []
    fill(filled, vectors(5, seed=6))
    assert len(find(filled, query)[0]) == 5
    filled.store.teardown(filled.config, [VIEW], [])
    assert list(folder.iterdir()) == []
    fill(filled, vectors(ROWS, seed=6))
    optimize(filled)
    check(filled, dict(enumerate(vectors(ROWS, seed=6))), vectors(10, seed=1))


def test_schema_changes(filled):
    model = dict(enumerate(vectors(ROWS)))
    queries = vectors(10, seed=1)
    wider = make_index_view()
    wider.features.insert(0, Field(name="extra", dtype=Int64))
    filled.update(keep=[wider])
    check(filled, model, queries, view=wider)
    assert find(filled, queries[0], view=wider)[1]["strategy"] == "index"
    # As doubles the vectors are other numbers to search in, and need another index.
    double = vector_view(length=DIM, metric="L2", dtype=Array(Float64))
    with pytest.warns(UserWarning, match=f"{ROWS} rows keep their values of before"):
        filled.update(keep=[double])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        check(filled, model, queries, view=double)
    optimize(filled, double)
    check(filled, model, queries, view=double)
    assert find(filled, queries[0], view=double)[1]["strategy"] == "index"
    # The feature gone and back is empty.
    bare = make_index_view()
    bare.features.pop()
    filled.update(keep=[bare])
    filled.update(keep=[VIEW])
    assert find(filled, queries[0])[0] == []
    assert segments(filled) == []


def test_another_metric_is_another_index(filled):
    query = vectors(1, seed=1)[0]
    cosine = make_index_view(metric="cosine")
    found, explanation = find(filled, query, view=cosine)
    assert explanation["strategy"].startswith("exact")
    until(lambda: find(filled, query, view=cosine)[1]["strategy"] == "index")
    again = find(filled, query, view=cosine)[0]
    assert [row for row, _ in again] == [row for row, _ in found]


def test_rows_that_expire(tmp_path):
    harness = make_harness(tmp_path, key_ttl_seconds=2)
    data = vectors(ROWS)
    fill(harness, data)
    lasting = make_harness(tmp_path)
    fill(lasting, data[:100], minute=1)
    optimize(lasting)
    query = vectors(1, seed=1)[0]
    until(lambda: len(find(lasting, query, top_k=200)[0]) == 100)
    assert find(lasting, query)[1]["strategy"] == "index"
    assert {row for row, _ in find(lasting, query, top_k=200)[0]} == set(range(100))


def test_filters(tmp_path):
    harness = make_harness(tmp_path)
    view = make_index_view()
    view.features.insert(0, Field(name="number", dtype=Int64))
    data = vectors(ROWS)
    rows = [
        (
            key(id=i),
            {"number": integer(i % 100), "embedding": Value(float_list_val=FloatList(val=row))},
            at(0),
        )
        for i, row in enumerate(data)
    ]
    harness.write(view, *rows)
    optimize(harness, view)
    query = vectors(1, seed=1)[0]
    true = ((data.astype("float64") - query) ** 2).sum(1)
    for below in (1, 10, 50):
        condition = ComparisonFilter(type="lt", key="number", value=below)
        ids = harness.find_ids(view, query.tolist(), filters=condition)
        passing = [i for i in range(ROWS) if i % 100 < below]
        assert ids == sorted(passing, key=lambda i: true[i])[:10]


def test_recall_on_queries_that_were_not_there_at_build(tmp_path):
    harness = make_harness(tmp_path)
    for recall in ("0.9", "0.99"):
        view = make_index_view(index_type="ivf", target_recall=recall)
        data = vectors(6000, clusters=300)
        fill(harness, data, view=view)
        report = optimize(harness, view)
        assert report["lists"] > 50
        assert report["target_recall"] == float(recall)
        tens = [point for point in report["curve"] if point["top_k"] == 10]
        assert any(point["recall"] >= float(recall) for point in tens)
        queries = vectors(300, seed=1, clusters=300)
        hits = 0
        for query in queries:
            found, explanation = find(harness, query, view)
            true = np.sqrt(((data - query).astype("float64") ** 2).sum(1))
            hits += sum(distance <= np.sort(true)[9] + 1e-6 for _, distance in found)
            assert explanation["lists_probed"] < report["lists"]
        assert hits / 3000 >= float(recall) - 0.005


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"index_type": "hnsw"}, "'hnsw' is none of auto, flat, ivf"),
        ({"target_recall": "1.5"}, r"'1.5' is no number from 0.5 to 1"),
        ({"target_recall": "high"}, r"'high' is no number from 0.5 to 1"),
    ],
)
def test_wrong_tags(harness, tags, message):
    with pytest.raises(ValueError, match=message) as error:
        fill(harness, vectors(1), view=make_index_view(**tags))
    assert "feature 'embedding'" in str(error.value)
