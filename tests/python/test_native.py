"""The native API: views resolved once, typed Arrow in and out."""

import math
import threading
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import feast_vector
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import sql_elsewhere
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.errors import FeatureViewNotFoundException
from feast.filter_models import ComparisonFilter
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    UnixTimestamp,
    Uuid,
)
from feast.types import Decimal as DecimalType
from feast.types import Map as MapType
from feast_vector import errors

NOW = datetime.now(timezone.utc).replace(microsecond=0)
ROWS = 40


def point(i):
    return [float(i * 7 % 31), float(i % 5)]


def frame():
    return pd.DataFrame(
        {
            "id": range(ROWS),
            "shop": [f"s{i % 3}" for i in range(ROWS)],
            "title": [f"item {i} {'red' if i % 2 else 'blue'}" for i in range(ROWS)],
            "price": [i / 4 for i in range(ROWS)],
            "stock": pd.array([None if i == 3 else i for i in range(ROWS)], dtype="Int64"),
            "tags": [[f"t{i % 4}"] for i in range(ROWS)],
            "embedding": [point(i) for i in range(ROWS)],
            "other": [[float(i)] for i in range(ROWS)],
            "event_timestamp": [NOW - timedelta(minutes=i) for i in range(ROWS)],
        }
    )


@pytest.fixture
def feature_store(tmp_path):
    """A feature store with two views of the same rows: by item, and by item and shop."""
    store = FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(tmp_path / "registry.db"),
            online_store={
                "type": "vector",
                "path": str(tmp_path / "vector.db"),
                "text_search_enabled": True,
            },
            entity_key_serialization_version=3,
            repo_path=tmp_path,
        )
    )
    frame().to_parquet(tmp_path / "items.parquet")
    source = FileSource(path=str(tmp_path / "items.parquet"), timestamp_field="event_timestamp")
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
    schema = [
        Field(name="title", dtype=String),
        Field(name="price", dtype=Float64),
        Field(name="stock", dtype=Int64),
        Field(name="tags", dtype=Array(String)),
        Field(
            name="embedding",
            dtype=Array(Float32),
            vector_index=True,
            vector_length=2,
            vector_search_metric="L2",
        ),
        Field(name="other", dtype=Array(Float64)),
    ]
    views = [
        FeatureView(name="items", entities=[item], schema=schema, source=source),
        FeatureView(name="both", entities=[item, shop], schema=schema, source=source),
    ]
    store.apply([item, shop, *views])
    for view in views:
        store.write_to_online_store(view.name, frame())
    return store


@pytest.fixture
def items(feature_store):
    """The view of items."""
    return feast_vector.open_view(feature_store, "items")


def nearest(query, ids=range(ROWS)):
    return sorted(ids, key=lambda i: (math.dist(query, point(i)), i))


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
        "title": [frame()["title"][i] for i in ids],
        "price": [i / 4 for i in ids],
        "stock": [None if i == 3 else i for i in ids],
        "tags": [[f"t{i % 4}"] for i in ids],
        "other": [[float(i)] for i in ids],
        "event_timestamp": [NOW - timedelta(minutes=i) for i in ids],
        "distance": [math.dist([3, 1], point(i)) for i in ids],
    }
    assert batch.to_pandas()["id"].tolist() == ids


def test_columns_on_request(feature_store):
    found = feast_vector.search(
        feature_store, "items", [3.0, 1.0], 2, features=["title"], as_dict=True
    )
    ids = nearest([3, 1])[:2]
    assert {name: found[name] for name in ("id", "title")} == {
        "id": ids,
        "title": [frame()["title"][i] for i in ids],
    }
    assert list(found) == ["id", "title", "event_timestamp", "distance"]


def test_vectors_are_fixed_size_lists(items):
    batch = items.search([3.0, 1.0], 1, features=["embedding"])
    assert batch.schema.field("embedding").type == pa.list_(pa.float32(), 2)
    assert batch["embedding"].to_pylist() == [point(nearest([3, 1])[0])]


def test_several_join_keys(feature_store):
    found = feast_vector.search(feature_store, "both", [3.0, 1.0], 3, features=["id"], as_dict=True)
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


def test_no_queries(items):
    assert items.search(np.empty((0, 2)), 4).num_rows == 0
    assert items.search(text=[], top_k=4).num_rows == 0


def test_pages_go_on_where_the_last_has_ended(items):
    everything = nearest([3, 1])
    pages = [
        items.search([3.0, 1.0], 7, offset=offset, features=[])["id"].to_pylist()
        for offset in range(0, ROWS + 7, 7)
    ]
    assert [i for page in pages for i in page] == everything
    hybrid = [
        items.search([3.0, 1.0], 7, text="red", offset=offset, features=[])["id"].to_pylist()
        for offset in range(0, ROWS + 7, 7)
    ]
    assert [i for page in hybrid for i in page] == items.search([3.0, 1.0], 100, text="red")[
        "id"
    ].to_pylist()


def test_a_threshold(items):
    query = [3.0, 1.0]
    near = [i for i in nearest(query) if math.dist(query, point(i)) <= 4]
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
    ids = [i for i in range(30, ROWS) if i % 4 in (1, 2)]
    assert items.search([3.0, 1.0], 100, filters=listed)["id"].to_pylist() == nearest([3, 1], ids)
    assert items.count(listed) == len(ids)


def test_text_and_hybrid(items):
    found = items.search(text="red 7", top_k=3, features=["title"])
    assert found["title"][0].as_py() == "item 7 red"
    assert found.schema.names == ["id", "title", "event_timestamp", "text_rank"]
    both = items.search(point(4), 100, text="red", features=[])
    assert both.schema.names == ["id", "event_timestamp", "distance", "text_rank", "score"]
    scores = both["score"].to_pylist()
    assert scores == sorted(scores, reverse=True)
    by_vector = nearest(point(4))
    by_text = items.search(text="red", top_k=100)["id"].to_pylist()
    expected = {
        i: 1 / (61 + by_vector.index(i)) + (1 / (61 + by_text.index(i)) if i in by_text else 0)
        for i in range(ROWS)
    }
    assert dict(zip(both["id"].to_pylist(), scores, strict=True)) == pytest.approx(expected)
    text_only = items.search(point(4), 100, text="red", weights=(0, 1), features=[])
    assert text_only["id"].to_pylist()[: len(by_text)] == by_text
    many = items.search([point(4), point(9)], 2, text=["red", "blue"], features=[])
    assert many["query"].to_pylist() == [0, 0, 1, 1]
    phrase = items.search(text="item 7", text_match="phrase")
    assert phrase["id"].to_pylist() == [7]
    assert len(items.search(text="ite", text_match="prefix", top_k=100)) == ROWS


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
    assert explanation["vectors"] == ROWS
    assert explanation["metric"] == "L2"
    assert explanation["texts"] == [{"expression": '"red"', "passed_over_as_too_common": []}]
    assert explanation["fusion"]["k"] == 60
    assert set(explanation["microseconds"]) == {"snapshot_and_filter", "ranking", "reading"}


def test_names_that_are_taken(tmp_path, feature_store):
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
    harness = feature_store._get_provider().online_store
    from conftest import at, key, text, vector

    row = {"distance": text("far"), "event_timestamp": text("late"), "vector": vector(1)}
    harness.online_write_batch(feature_store.config, view, [(key(id=1), row, at(0), None)], None)
    feature_store.registry.apply_feature_view(view, "shop")
    found = feast_vector.search(feature_store, "taken", [1.0], as_dict=True)
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


# --- read, delete, count, sql


KEYS = [
    [7, 99, 3],
    (7, 99, 3),
    np.array([7, 99, 3]),
    [{"id": 7}, {"id": 99}, {"id": 3}],
    {"id": [7, 99, 3]},
    pa.table({"id": [7, 99, 3], "more": [1, 2, 3]}),
    pa.record_batch({"id": [7, 99, 3]}),
]


@pytest.mark.parametrize(
    "keys", KEYS, ids=[type(keys).__name__ + str(i) for i, keys in enumerate(KEYS)]
)
def test_reads(items, keys):
    assert items.read(keys, ["stock", "title"], as_dict=True) == {
        "id": [7, 99, 3],
        "stock": [7, None, None],
        "title": ["item 7 red", None, "item 3 red"],
        "event_timestamp": [NOW - timedelta(minutes=7), None, NOW - timedelta(minutes=3)],
    }


def test_reads_of_all_features(feature_store, items):
    row = items.read([5]).to_pylist()[0]
    assert row["embedding"] == point(5)
    assert set(row) == {"id", "event_timestamp", *(field.name for field in items._table.features)}
    both = feast_vector.open_view(feature_store, "both")
    keys = [{"id": 4, "shop": "s1"}, {"id": 4, "shop": "s2"}]
    assert both.read(keys, ["price"])["price"].to_pylist() == [1.0, None]
    assert items.read([]).num_rows == 0


@pytest.mark.parametrize(
    ("keys", "pattern"),
    [
        ([{"item": 7}], "'items': keys have to have its join keys, which are: id"),
        ({"id": [1], "other": [2]}, "keys have to have its join keys"),
        (pa.table({"x": [1]}), "keys have to have its join keys"),
        (["seven"], r"join key 'id' \(INT64\)"),
    ],
)
def test_wrong_keys(items, keys, pattern):
    for call in (items.read, items.delete):
        with pytest.raises(errors.InvalidInputError, match=pattern) as caught:
            call(keys)
        assert caught.value.kind == "invalid_key"


def test_deleted_rows_are_gone_from_everywhere(feature_store, items):
    other = feast_vector.open_view(
        FeatureStore(config=feature_store.config.model_copy(deep=True)), "items"
    )
    assert len(other.search([3.0, 1.0], 100)) == ROWS
    assert items.delete([7, 8, 99]) == 2
    assert items.delete([7]) == 0
    gone = {7, 8}
    left = [i for i in range(ROWS) if i not in gone]
    for view in (items, other):
        assert view.search([3.0, 1.0], 100)["id"].to_pylist() == nearest([3, 1], left)
        assert set(view.search(text="item", top_k=100)["id"].to_pylist()) == set(left)
        found = view.search([3.0, 1.0], 100, filters={"type": "gte", "key": "id", "value": 0})
        assert set(found["id"].to_pylist()) == set(left)
        assert view.count() == len(left)
        assert view.read([7])["event_timestamp"].to_pylist() == [None]
    assert feature_store.get_online_features(["items:title"], [{"id": 7}, {"id": 9}]).to_dict()[
        "title"
    ] == [None, "item 9 red"]
    count = "SELECT count(*) FROM shop_items"
    from types import SimpleNamespace

    assert sql_elsewhere(SimpleNamespace(config=feature_store.config), count) == [(len(left),)]
    # A row may come back.
    feature_store.write_to_online_store("items", frame().iloc[7:8])
    assert items.search(point(7), 1)["id"].to_pylist() == [7]


def test_counts(items):
    assert items.count() == ROWS
    assert items.count({"type": "ne", "key": "stock", "value": 5}) == ROWS - 2
    assert items.count({"type": "and", "filters": []}) == ROWS


def test_sql_reads(feature_store):
    def sql(statement, *parameters):
        return feast_vector.sql(feature_store, statement, parameters, as_dict=True)

    assert sql("SELECT id, title FROM shop_items WHERE price < ? ORDER BY id DESC", 0.5) == {
        "id": [1, 0],
        "title": ["item 1 red", "item 0 blue"],
    }
    assert sql("SELECT ? AS a, ? AS b, ? AS c, ? AS d, ? AS e", 1, 2.5, "x", b"\0", None) == {
        "a": [1],
        "b": [2.5],
        "c": ["x"],
        "d": [b"\0"],
        "e": [None],
    }
    mixed = "SELECT column1 AS m FROM (VALUES (1), (2.5), (NULL), ({}))"
    assert sql(mixed.format("3")) == {"m": [1.0, 2.5, None, 3.0]}
    assert sql(mixed.format("'t'")) == {"m": ["1", "2.5", None, "t"]}
    assert sql(mixed.format("X'0aff'")) == {"m": ["1", "2.5", None, "X'0aff'"]}
    assert sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3) SELECT i FROM n"
    ) == {"i": [1, 2, 3]}
    assert feast_vector.sql(feature_store, "SELECT id FROM shop_items LIMIT 0").num_rows == 0


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM shop_items",
        "UPDATE shop_items SET title = 'x'",
        "INSERT INTO shop_items (entity_key, event_timestamp) VALUES (x'00', 1)",
        "DROP TABLE shop_items",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "VACUUM",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT s",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA query_only = 1",
        "REINDEX",
        "ANALYZE",
    ],
)
def test_sql_that_would_change_something_is_refused(feature_store, statement):
    with pytest.raises(
        errors.InvalidInputError, match="would change something; `sql` only reads"
    ) as caught:
        feast_vector.sql(feature_store, statement)
    assert caught.value.kind == "invalid_sql"
    assert feast_vector.open_view(feature_store, "items").count() == ROWS


@pytest.mark.parametrize(
    ("statement", "parameters", "pattern"),
    [
        ("SELEC 1", [], "syntax error"),
        ("SELECT * FROM missing", [], "no such table"),
        ("SELECT 1; SELECT 2", [], "more than one statement"),
        ("", [], "there is no statement"),
        ("SELECT ?", [], "has 1 parameters, and 0 values were passed"),
        ("SELECT ?", [{}], "parameters can be integers, floats, strings, bytes or None"),
    ],
)
def test_wrong_sql(feature_store, statement, parameters, pattern):
    with pytest.raises(errors.InvalidInputError, match=pattern) as caught:
        feast_vector.sql(feature_store, statement, parameters)
    assert caught.value.kind == "invalid_sql"


# --- types


def test_every_type_has_its_arrow_type(tmp_path, feature_store):
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    fields = {
        "a": Int32,
        "b": Float32,
        "c": Bool,
        "d": Bytes,
        "e": UnixTimestamp,
        "f": Uuid,
        "g": DecimalType,
        "h": Array(Int32),
        "i": Array(Bool),
        "j": MapType,
        "k": Int64,
    }
    view = FeatureView(
        name="types",
        entities=[item],
        schema=[Field(name=name, dtype=dtype) for name, dtype in fields.items()],
        source=FileSource(path=str(tmp_path / "items.parquet"), timestamp_field="event_timestamp"),
    )
    view.entity_columns = [Field(name="id", dtype=Int64)]
    from conftest import at, key, text
    from feast.protos.feast.types.Value_pb2 import BoolList, Int32List, Map

    tree = Value(map_val=Map(val={"x": Value(int64_val=1)}))
    row = {
        "a": Value(int32_val=-1),
        "b": Value(float_val=math.nan),
        "c": Value(bool_val=True),
        "d": Value(bytes_val=b"\0"),
        "e": Value(unix_timestamp_val=0),
        "f": Value(uuid_val=str(uuid.UUID(int=1))),
        "g": Value(decimal_val=str(Decimal("1.50"))),
        "h": Value(int32_list_val=Int32List(val=[1, -2])),
        "i": Value(bool_list_val=BoolList(val=[True, False])),
        "j": tree,
        "k": text("of another type"),
    }
    store = feature_store._get_provider().online_store
    data = [(key(id=1), row, at(0), None), (key(id=2), {}, at(0), None)]
    store.online_write_batch(feature_store.config, view, data, None)
    feature_store.registry.apply_feature_view(view, "shop")
    batch = feast_vector.open_view(feature_store, "types").read([1, 2])
    assert {name: str(batch.schema.field(name).type) for name in fields} == {
        "a": "int32",
        "b": "float",
        "c": "bool",
        "d": "binary",
        "e": "timestamp[s, tz=UTC]",
        "f": "string",
        "g": "string",
        "h": "list<item: int32>",
        "i": "list<item: bool>",
        "j": "binary",
        "k": "int64",
    }
    first, second = batch.to_pylist()
    assert math.isnan(first.pop("b"))
    assert Value.FromString(first.pop("j")) == tree
    assert first == {
        "id": 1,
        "event_timestamp": at(0),
        "a": -1,
        "c": True,
        "d": b"\0",
        "e": datetime(1970, 1, 1, tzinfo=timezone.utc),
        "f": str(uuid.UUID(int=1)),
        "g": "1.50",
        "h": [1, -2],
        "i": [True, False],
        # Not lossless as an integer; reads through Feast have it.
        "k": None,
    }
    assert {second[name] for name in fields} == {None}


# --- errors


def test_wrong_arguments(items):
    for call, pattern in [
        (lambda: items.search([1.0, 2.0, 3.0]), "has 3 values, but the stored vectors have 2"),
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


def test_views_that_are_not_there_and_stores_that_are_not_ours(tmp_path, feature_store):
    with pytest.raises(FeatureViewNotFoundException):
        feast_vector.open_view(feature_store, "nothing")
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
