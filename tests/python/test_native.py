"""The native search: views resolved once, typed Arrow out."""

import math
import threading
from datetime import timedelta

import feast_vector
import numpy as np
import pyarrow as pa
import pytest
from conftest import SHOP_ROWS, SHOP_TIME, at, key, shop_frame, shop_point, text, vector
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.errors import FeatureViewNotFoundException
from feast.filter_models import ComparisonFilter
from feast.types import Array, Float32, Int64, String
from feast_vector import errors


def nearest(query, ids=range(SHOP_ROWS)):
    return sorted(ids, key=lambda i: (math.dist(query, shop_point(i)), i))


# --- search


def test_answers_are_typed(items):
    batch = items.search([3.0, 1.0], 5)
    assert isinstance(batch, pa.RecordBatch)
    assert {field.name: str(field.type) for field in batch.schema} == {
        "id": "int64",
        "title": "string",
        "price": "double",
        "stock": "int64",
        "tags": "list<item: string>",
        "other": "list<item: double>",
        "event_timestamp": "timestamp[us, tz=UTC]",
        "distance": "double",
    }
    ids = nearest([3, 1])[:5]
    assert batch.to_pydict() == {
        "id": ids,
        "title": [shop_frame()["title"][i] for i in ids],
        "price": [i / 4 for i in ids],
        "stock": [None if i == 3 else i for i in ids],
        "tags": [[f"t{i % 4}"] for i in ids],
        "other": [[float(i)] for i in ids],
        "event_timestamp": [SHOP_TIME - timedelta(minutes=i) for i in ids],
        "distance": [math.dist([3, 1], shop_point(i)) for i in ids],
    }
    assert batch.to_pandas()["id"].tolist() == ids


def test_columns_on_request(shop_store):
    found = feast_vector.search(
        shop_store, "items", [3.0, 1.0], 2, features=["title"], as_dict=True
    )
    ids = nearest([3, 1])[:2]
    assert {name: found[name] for name in ("id", "title")} == {
        "id": ids,
        "title": [shop_frame()["title"][i] for i in ids],
    }
    assert list(found) == ["id", "title", "event_timestamp", "distance"]


def test_vectors_are_fixed_size_lists(items):
    batch = items.search([3.0, 1.0], 1, features=["embedding"])
    assert batch.schema.field("embedding").type == pa.list_(pa.float32(), 2)
    assert batch["embedding"].to_pylist() == [shop_point(nearest([3, 1])[0])]


def test_several_join_keys(shop_store):
    found = feast_vector.search(shop_store, "both", [3.0, 1.0], 3, features=["id"], as_dict=True)
    ids = nearest([3, 1])[:3]
    assert (found["id"], found["shop"]) == (ids, [f"s{i % 3}" for i in ids])


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_many_queries(items, count):
    queries = np.array([[i / 3, i % 4] for i in range(count)], dtype=np.float32)
    batch = items.search(queries, 4, features=[])
    assert batch.schema.names == ["query", "id", "event_timestamp", "distance"]
    assert batch.schema.field("query").type == pa.int32()
    assert batch["query"].to_pylist() == [i for i in range(count) for _ in range(4)]
    assert batch["id"].to_pylist() == [
        i for query in queries for i in nearest([float(x) for x in query])[:4]
    ]
    one_by_one = [items.search(query, 4, features=[]) for query in queries]
    assert batch["distance"].to_pylist() == [
        distance for answer in one_by_one for distance in answer["distance"].to_pylist()
    ]


def test_one_of_many_is_numbered_and_one_alone_is_not(items):
    for queries in ([[3.0, 1.0]], np.array([[3.0, 1.0]])):
        assert items.search(queries, 2, features=[])["query"].to_pylist() == [0, 0]
    assert items.search(text=["red"], top_k=2, features=[])["query"].to_pylist() == [0, 0]
    for query in ([3.0, 1.0], (3, 1), np.array([3, 1])):
        assert "query" not in items.search(query, 2).schema.names


def test_no_queries(items):
    assert items.search(np.empty((0, 2)), 4).num_rows == 0
    assert items.search(text=[], top_k=4).num_rows == 0


def test_pages_go_on_where_the_last_has_ended(items):
    everything = nearest([3, 1])
    pages = [
        items.search([3.0, 1.0], 7, offset=offset, features=[])["id"].to_pylist()
        for offset in range(0, SHOP_ROWS + 7, 7)
    ]
    assert [i for page in pages for i in page] == everything
    hybrid = [
        items.search([3.0, 1.0], 7, text="red", offset=offset, features=[])["id"].to_pylist()
        for offset in range(0, SHOP_ROWS + 7, 7)
    ]
    assert [i for page in hybrid for i in page] == items.search([3.0, 1.0], 100, text="red")[
        "id"
    ].to_pylist()


def test_a_threshold(items):
    query = [3.0, 1.0]
    near = [i for i in nearest(query) if math.dist(query, shop_point(i)) <= 4]
    assert items.search(query, 100, max_distance=4, features=[])["id"].to_pylist() == near
    both = items.search(query, 100, text="red", max_distance=4)
    assert sorted(both["id"].to_pylist()) == sorted(near)
    assert max(both["distance"].to_pylist()) <= 4
    with pytest.raises(errors.InvalidInputError, match="max_distance needs a query vector"):
        items.search(text="red", max_distance=4)


def test_filters_and_lists(items):
    wanted = ComparisonFilter(type="lt", key="price", value=2)
    assert items.search([3.0, 1.0], 100, filters=wanted)["id"].to_pylist() == nearest(
        [3, 1], range(8)
    )
    listed = {
        "type": "and",
        "filters": [
            {"type": "any_of", "key": "tags", "value": ["t1", "t2"]},
            {"type": "gte", "key": "id", "value": 30},
        ],
    }
    ids = [i for i in range(30, SHOP_ROWS) if i % 4 in (1, 2)]
    assert items.search([3.0, 1.0], 100, filters=listed)["id"].to_pylist() == nearest([3, 1], ids)
    assert items.count(listed) == len(ids)


def test_text_and_hybrid(items):
    found = items.search(text="red 7", top_k=3, features=["title"])
    assert found["title"][0].as_py() == "item 7 red"
    assert found.schema.names == ["id", "title", "event_timestamp", "text_rank"]
    both = items.search(shop_point(4), 100, text="red", features=[])
    assert both.schema.names == ["id", "event_timestamp", "distance", "text_rank", "score"]
    scores = both["score"].to_pylist()
    assert scores == sorted(scores, reverse=True)
    by_vector = nearest(shop_point(4))
    by_text = items.search(text="red", top_k=100)["id"].to_pylist()
    expected = {
        i: 1 / (61 + by_vector.index(i)) + (1 / (61 + by_text.index(i)) if i in by_text else 0)
        for i in range(SHOP_ROWS)
    }
    assert dict(zip(both["id"].to_pylist(), scores, strict=True)) == pytest.approx(expected)
    text_only = items.search(shop_point(4), 100, text="red", weights=(0, 1), features=[])
    assert text_only["id"].to_pylist()[: len(by_text)] == by_text
    many = items.search([shop_point(4), shop_point(9)], 2, text=["red", "blue"], features=[])
    assert many["query"].to_pylist() == [0, 0, 1, 1]
    phrase = items.search(text="item 7", text_match="phrase")
    assert phrase["id"].to_pylist() == [7]
    assert len(items.search(text="ite", text_match="prefix", top_k=100)) == SHOP_ROWS


def test_another_feature_and_metric(items):
    found = items.search([20.2], 3, feature="other", metric="l2", features=["other"])
    assert found["other"].to_pylist() == [[20.0], [21.0], [19.0]]
    dots = items.search([1.0, 0.0], 1, metric="inner_product")
    assert dots["distance"].to_pylist() == [-30.0]


def test_explanations(items):
    batch, explanation = items.search(
        [3.0, 1.0],
        5,
        text="red",
        filters={"type": "lt", "key": "id", "value": 10},
        explain=True,
        exact=True,
    )
    assert batch.num_rows == 5
    assert explanation["rows_passing_filter"] == 10
    assert explanation["vectors"] == SHOP_ROWS
    assert explanation["metric"] == "L2"
    assert explanation["texts"] == [{"expression": '"red"', "passed_over_as_too_common": []}]
    assert explanation["fusion"]["k"] == 60
    assert set(explanation["microseconds"]) == {"snapshot_and_filter", "ranking", "reading"}


def test_names_that_are_taken(tmp_path, shop_store):
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="taken",
        entities=[item],
        schema=[
            Field(name="distance", dtype=String),
            Field(name="event_timestamp", dtype=String),
            Field(name="vector", dtype=Array(Float32), vector_index=True),
        ],
        source=FileSource(path=str(tmp_path / "items.parquet"), timestamp_field="created"),
    )
    view.entity_columns = [Field(name="id", dtype=Int64)]
    harness = shop_store._get_provider().online_store
    row = {"distance": text("far"), "event_timestamp": text("late"), "vector": vector(1)}
    harness.online_write_batch(shop_store.config, view, [(key(id=1), row, at(0), None)], None)
    shop_store.registry.apply_feature_view(view, "shop")
    found = feast_vector.search(shop_store, "taken", [1.0], as_dict=True)
    assert (found["distance"], found["event_timestamp"]) == (["far"], ["late"])
    assert (found["_distance"], found["_event_timestamp"]) == ([0.0], [at(0)])


def test_threads_share_a_view(items):
    expected = items.search([3.0, 1.0], 5)
    answers = []

    def work():
        answers.extend(items.search([3.0, 1.0], 5) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 120
    assert all(answer.equals(expected) for answer in answers)


# --- errors


def test_wrong_arguments(items):
    for call, pattern in [
        (
            lambda: items.search([1.0, 2.0, 3.0]),
            "has 3 values, but the feature declares vector_length=2",
        ),
        (lambda: items.search(np.zeros((2, 2, 2))), "one dimension, or two for several queries"),
        (
            lambda: items.search([[1.0, 2.0], [1.0, math.nan]]),
            "query 1: the query vector holds NaN",
        ),
        (
            lambda: items.search([1.0, 2.0], offset=-1),
            "offset has to be a whole number of at least",
        ),
        (lambda: items.search([1.0, 2.0], top_k=0), "top_k has to be a whole number of at least 1"),
        (lambda: items.search([1.0, 2.0], metric="x"), "unknown metric 'x'"),
        (
            lambda: items.search(text="a", text_match="x"),
            "unknown text match 'x'; use 'any', 'all'",
        ),
        (lambda: items.search(text=5), "the text to search for has to be a string"),
        (lambda: items.search(text=["a", 5]), "the text to search for has to be a string"),
        (lambda: items.search([1.0, 2.0], text=["a", "b"]), "1 query vectors and 2 query texts"),
        (
            lambda: items.search([1.0, 2.0], text="a", weights=(-1, 1)),
            "weights and the k of the fus",
        ),
        (lambda: items.search([1.0, 2.0], features=["x"]), "'items' has no feature 'x'; its feat"),
        (lambda: items.search([1.0, 2.0], feature="x"), "'items' has no feature 'x'; its features"),
        (lambda: items.search([1.0, 2.0], feature="title"), "features of type STRING hold no vec"),
        (items.search, "nothing to search for"),
        (lambda: items.read([1], ["x"]), "'items' has no feature 'x'"),
    ]:
        with pytest.raises(errors.FeastVectorError, match=pattern):
            call()


def test_views_that_are_not_there_and_stores_that_are_not_ours(tmp_path, shop_store):
    with pytest.raises(FeatureViewNotFoundException):
        feast_vector.open_view(shop_store, "nothing")
    foreign = FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(tmp_path / "registry.db"),
            online_store={"type": "sqlite", "path": str(tmp_path / "other.db")},
            entity_key_serialization_version=3,
        )
    )
    with pytest.raises(errors.InvalidInputError, match="is SqliteOnlineStore, not feast-vector's"):
        feast_vector.open_view(foreign, "items")
