"""Similarity search, through the store and through Feast."""

import math
import pickle

import numpy as np
import pandas as pd
import pytest
from conftest import (
    at,
    in_another_process,
    integer,
    key,
    make_harness,
    make_view,
    sql_elsewhere,
    text,
    vector,
    vector_view,
)
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.protos.feast.types.Value_pb2 import DoubleList, Int32List, Int64List, Value
from feast.types import Array, Float32, Float64, Int32, Int64, String
from feast_vector import rank_order

POINTS = {1: (1, 0), 2: (0, 2), 3: (3, 3), 4: (-1, -0.5), 5: (0.5, 0.1)}


def write_points(harness, view, points=POINTS):
    harness.write(
        view,
        *(
            (key(id=i), {"title": text(f"t{i}"), "embedding": vector(*point)}, at(i))
            for i, point in points.items()
        ),
    )


def expected(metric, query, points=POINTS, top_k=10):
    def distance(point):
        dot = sum(a * b for a, b in zip(query, point, strict=True))
        if metric == "L2":
            return math.dist(query, point)
        if metric == "L1":
            return sum(abs(x - y) for x, y in zip(query, point, strict=True))
        if metric == "inner_product":
            return -dot
        return 1 - dot / math.hypot(*query) / math.hypot(*point)

    rows = sorted((distance(point), i) for i, point in points.items())
    return [(i, f"t{i}", pytest.approx(d, abs=1e-4)) for d, i in rows][:top_k]


@pytest.mark.parametrize(
    ("declared", "metric"),
    [
        ("cosine", "cosine"),
        ("COSINE", "cosine"),
        ("L2", "L2"),
        ("euclidean", "L2"),
        ("IP", "inner_product"),
        ("dot_product", "inner_product"),
        ("manhattan", "L1"),
        ("l1", "L1"),
    ],
)
@pytest.mark.parametrize("top_k", [1, 3, 5, 1000])
def test_metrics(harness, declared, metric, top_k):
    view = vector_view(metric=declared)
    write_points(harness, view)
    for query in [(1, 0.2), (-2, 1)]:
        assert harness.search(view, list(query), top_k) == expected(metric, query, top_k=top_k)


def test_whose_metric_counts(tmp_path):
    """The field's, else the configured one, else what the caller says where it says something."""
    query, metrics = (1, 0.2), ("cosine", "L2", "inner_product")
    for configured in (None, *metrics):
        online = {} if configured is None else {"similarity": configured}
        harness = make_harness(tmp_path, **online)
        plain, declared = vector_view("plain"), vector_view("declared", metric="L2")
        write_points(harness, plain)
        write_points(harness, declared)
        for asked in metrics:
            assert harness.search(declared, query, metric=asked) == expected("L2", query)
            wins = configured or ("cosine" if asked == "L2" else asked)
            assert harness.search(plain, query, metric=asked) == expected(wins, query)


def test_queries_may_be_lists_or_arrays(harness):
    view = vector_view()
    write_points(harness, view)
    answers = [
        harness.search(view, query)
        for query in ([1, 0.25], (1.0, 0.25), np.array([1, 0.25]), np.array([1, 0.25], np.float32))
    ]
    assert answers == [answers[0]] * 4


@pytest.mark.parametrize(
    ("dtype", "wrap"),
    [
        (Array(Float64), lambda v: Value(double_list_val=DoubleList(val=v))),
        (Array(Int32), lambda v: Value(int32_list_val=Int32List(val=map(int, v)))),
        (Array(Int64), lambda v: Value(int64_list_val=Int64List(val=map(int, v)))),
    ],
)
def test_other_number_types(harness, dtype, wrap):
    points = {1: (1, 0), 2: (0, 2), 3: (3, 3), 4: (-(2**20), 7)}
    view = vector_view(dtype=dtype, metric="L2")
    rows = [
        (key(id=i), {"title": text(f"t{i}"), "embedding": wrap(point)}, at(0))
        for i, point in points.items()
    ]
    harness.write(view, *rows)
    found = harness.search(view, [1, 1])
    assert [row[0] for row in found] == [row[0] for row in expected("L2", (1, 1), points)]


def test_float64_is_searched_in_float64(harness):
    view = vector_view(length=1, dtype=Array(Float64), metric="L2")
    values = {1: 1.0, 2: 1.0 + 2**-40, 3: 1.0 - 2**-41}
    for i, value in values.items():
        stored = Value(double_list_val=DoubleList(val=[value]))
        harness.write(view, (key(id=i), {"title": text(""), "embedding": stored}, at(0)))
    assert [row[0] for row in harness.search(view, [1.0 + 2**-41])] == [1, 2, 3]


def test_rows_without_a_rank_are_left_out(harness):
    view = vector_view(length=0, metric="cosine")
    rows = {
        1: {"embedding": vector(1, 0)},
        2: {},
        3: {"embedding": Value()},
        4: {"embedding": vector(math.nan, 1)},
        5: {"embedding": vector(1, math.inf)},
        6: {"embedding": vector(0, 0)},
        7: {"embedding": vector(1, 2, 3)},
        8: {"embedding": Value(double_list_val=DoubleList(val=[0, 1]))},
        9: {"embedding": text("not a vector")},
        10: {"embedding": vector()},
    }
    for i, row in rows.items():
        harness.write(view, (key(id=i), {"title": text(f"t{i}"), **row}, at(0)))
    assert harness.search(view, [1, 0]) == [(1, "t1", 0), (6, "t6", 1), (8, "t8", 1)]
    # What was written is there all the same.
    assert math.isnan(harness.read(view, key(id=4))[0][1]["embedding"].float_list_val.val[0])


def test_writes_are_seen_by_the_next_search(tmp_path):
    here, there = make_harness(tmp_path), make_harness(tmp_path)
    view = vector_view(metric="L2")
    points = dict(POINTS)
    write_points(here, view)
    for step in range(40):
        number = step % 7 + 1
        points[number] = (step, -step / 2)
        row = {"title": text(f"t{number}"), "embedding": vector(*points[number])}
        (here if step % 2 else there).write(view, (key(id=number), row, at(100 + step)))
        for harness in (here, there):
            assert harness.search(view, [3, 1]) == expected("L2", (3, 1), points)


def test_commits_of_another_process_are_seen(harness, tmp_path):
    view = vector_view(metric="L2")
    write_points(harness, view)
    assert harness.search(view, [9, 9], 1)[0][0] == 3
    code = """
row = {"title": text("t6"), "embedding": vector(9, 9)}
harness.write(vector_view(metric="L2"), (key(id=6), row, at(0)))
"""
    with in_another_process(tmp_path, code) as other:
        assert other.wait() == 0
    assert harness.search(view, [9, 9], 1) == [(6, "t6", 0)]


def test_the_second_search_reads_no_vectors_from_the_file(harness):
    """What another program does to a vector, past the change log, is not seen: it is in memory."""
    view = vector_view(metric="L2")
    write_points(harness, view)
    before = harness.search(view, [3, 1])
    sql_elsewhere(harness, "UPDATE shop_items SET embedding = zeroblob(8)")
    assert harness.search(view, [3, 1]) == before
    harness.store = pickle.loads(pickle.dumps(harness.store))
    assert {distance for _, _, distance in harness.search(view, [0, 0])} == {0}


def test_a_wrong_query_does_not_cost_the_vectors_in_memory(harness):
    view = vector_view(length=0, metric="L2")
    write_points(harness, view)
    before = harness.search(view, [3, 1])
    sql_elsewhere(harness, "UPDATE shop_items SET embedding = zeroblob(8)")
    for query, filters in (([1, 2, 3], None), ([3, 1], {"type": "eq", "key": "x", "value": 1})):
        with pytest.raises(ValueError, match=r"has 3 values|nothing named 'x'"):
            harness.find(view, query, filters=filters)
    assert harness.search(view, [3, 1]) == before


def test_first_generation_api(harness):
    view = vector_view(metric="L2")
    write_points(harness, view)
    found = harness.store.retrieve_online_documents(
        harness.config, view, ["title"], [1, 0], 2, "L2"
    )
    assert [
        (time, entity, feature, stored, distance.float_val)
        for time, entity, feature, stored, distance in found
    ] == [
        (at(1), key(id=1), text("t1"), vector(1, 0), 0.0),
        (at(5), key(id=5), text("t5"), vector(0.5, 0.1), pytest.approx(math.hypot(0.5, 0.1))),
    ]


def test_a_requested_join_key_comes_from_the_key(harness):
    view = vector_view()
    write_points(harness, view)
    found = harness.store.retrieve_online_documents_v2(
        harness.config, view, ["id", "title"], [1, 0], 1
    )
    assert found[0][2]["id"] == integer(1)


def test_empty_views(harness):
    view = vector_view()
    assert harness.search(view, [1, 0]) == []
    harness.update([view])
    assert harness.search(view, [1, 0]) == []
    harness.write(view, (key(id=1), {"title": text("no vector")}, at(0)))
    assert harness.search(view, [1, 0]) == []


def test_equal_vectors_come_in_the_order_they_were_written(harness):
    view = vector_view(metric="L2")
    write_points(harness, view, dict.fromkeys(range(50), (1, 1)))
    assert [row[0] for row in harness.search(view, [1, 1], 20)] == list(range(20))


# --- through FeatureStore, which tears rows apart in 0.67


@pytest.fixture
def feature_store(tmp_path):
    config = RepoConfig(
        project="shop",
        provider="local",
        registry=str(tmp_path / "registry.db"),
        online_store={"type": "vector", "path": str(tmp_path / "online.db")},
        entity_key_serialization_version=3,
        repo_path=tmp_path,
    )
    store = FeatureStore(config=config)
    frame = pd.DataFrame(
        {
            "id": range(1, 31),
            "shop": [f"s{i % 3}" for i in range(1, 31)],
            "title": [f"t{i}" for i in range(1, 31)],
            "embedding": [[float(i * 7 % 31), float(i % 5)] for i in range(1, 31)],
            "event_timestamp": pd.Timestamp("2026-01-01", tz="UTC"),
        }
    )
    frame.to_parquet(tmp_path / "items.parquet")
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
    schema = [
        Field(name="title", dtype=String),
        Field(
            name="embedding",
            dtype=Array(Float32),
            vector_index=True,
            vector_length=2,
            vector_search_metric="L2",
        ),
    ]
    source = FileSource(path=str(tmp_path / "items.parquet"), timestamp_field="event_timestamp")
    views = [
        FeatureView(name="items", entities=[item], schema=schema, source=source),
        FeatureView(name="shop_items", entities=[item, shop], schema=schema, source=source),
    ]
    store.apply([item, shop, *views])
    for view in views:
        store.write_to_online_store(view.name, frame)
    return store


def mended(
    self,
    provider,
    table,
    requested_features,
    query,
    top_k,
    distance_metric,
    query_string,
    filters=None,
    include_feature_view_version_metadata=False,
):
    """`_retrieve_from_online_store_v2` as it should be: each row where the store put it."""
    from feast import utils
    from feast.online_response import OnlineResponse
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse

    rows = provider.retrieve_online_documents_v2(
        config=self.config,
        table=table,
        requested_features=requested_features,
        embedding=query,
        top_k=top_k,
        distance_metric=distance_metric,
        query_string=query_string,
        filters=filters,
        include_feature_view_version_metadata=include_feature_view_version_metadata,
    )
    keys = {}
    for _, entity, _ in rows:
        for name, value in zip(entity.join_keys, entity.entity_values, strict=True):
            keys.setdefault(name, []).append(value)
    response = GetOnlineFeaturesResponse(results=[])
    utils._populate_response_from_feature_data(
        [*requested_features, "distance"],
        [(time, row) for time, _, row in rows],
        [[i] for i in range(len(rows))],
        response,
        False,
        table,
        len(rows),
    )
    utils._populate_result_rows_from_columnar(response, keys)
    return OnlineResponse(response)


@pytest.mark.parametrize("feast_is_mended", [False, True])
@pytest.mark.parametrize("view", ["items", "shop_items"])
def test_rows_are_whole_and_best_first_through_feast(
    feature_store, monkeypatch, feast_is_mended, view
):
    if feast_is_mended:
        monkeypatch.setattr(FeatureStore, "_retrieve_from_online_store_v2", mended)
    assert rank_order._scrambles(FeatureStore._retrieve_from_online_store_v2) is not feast_is_mended

    query = [17.375, 2.125]
    found = feature_store.retrieve_online_documents_v2(
        features=[f"{view}:title", f"{view}:embedding"], query=query, top_k=12
    ).to_dict()
    vectors = {i: [float(i * 7 % 31), float(i % 5)] for i in range(1, 31)}
    ids = sorted(vectors, key=lambda i: (math.dist(query, vectors[i]), i))[:12]
    assert found["id"] == ids
    assert found["title"] == [f"t{i}" for i in ids]
    assert found["embedding"] == [vectors[i] for i in ids]
    assert found["distance"] == pytest.approx([math.dist(query, vectors[i]) for i in ids])
    if view == "shop_items":
        assert found["shop"] == [f"s{i % 3}" for i in ids]


def test_whoever_asks_the_store_directly_gets_whole_rows(feature_store):
    view = feature_store.get_feature_view("items")
    provider = feature_store._get_provider()
    for ask in (
        provider.retrieve_online_documents_v2,
        provider.online_store.retrieve_online_documents_v2,
    ):
        rows = ask(feature_store.config, view, ["title"], [17.375, 2.125], 12)
        assert [row["title"].string_val for _, _, row in rows] == [
            f"t{entity.entity_values[0].int64_val}" for _, entity, _ in rows
        ]
        distances = [row["distance"].float_val for _, _, row in rows]
        assert distances == sorted(distances)


def test_first_generation_api_through_feast(feature_store):
    query = [17.375, 2.125]
    found = feature_store.retrieve_online_documents(
        query=query, top_k=3, features=["items:embedding"]
    ).to_dict()
    vectors = [[float(i * 7 % 31), float(i % 5)] for i in range(1, 31)]
    assert found["embedding"] == sorted(vectors, key=lambda v: math.dist(query, v))[:3]


def test_another_array_column_is_searched_through_the_core(harness):
    from feast_vector import _core
    from feast_vector.protos import found_rows

    view = make_view(fields={"a": Array(Float32), "b": Array(Int64), "n": Int64})
    harness.write(
        view,
        (key(id=1), {"a": vector(1), "b": Value(int64_list_val=Int64List(val=[5]))}, at(0)),
        (key(id=2), {"a": vector(5), "b": Value(int64_list_val=Int64List(val=[1]))}, at(0)),
    )
    engine = harness.store.engine(harness.config)
    identity = _core.View("shop", "items")
    for feature, nearest in (("a", 1), ("b", 2)):
        queries = np.array([[1.0]])
        batch, _ = engine.search(
            identity, feature=feature, queries=queries, metric="l2", top_k=1, features=[]
        )
        assert found_rows(batch, [])[0][1] == key(id=nearest)
