"""Native reads, deletes, counts and SQL; and the Arrow types of Feast's."""

import math
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace

import feast_vector
import numpy as np
import pyarrow as pa
import pytest
from conftest import (
    SHOP_ROWS,
    SHOP_TIME,
    at,
    key,
    shop_frame,
    shop_point,
    sql_elsewhere,
    text,
)
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.protos.feast.types.Value_pb2 import BoolList, Int32List, Map, Value
from feast.types import Array, Bool, Bytes, Float32, Int32, Int64, UnixTimestamp, Uuid
from feast.types import Decimal as DecimalType
from feast.types import Map as MapType
from feast_vector import errors


def nearest(query, ids=range(SHOP_ROWS)):
    return sorted(ids, key=lambda i: (math.dist(query, shop_point(i)), i))


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
        "event_timestamp": [
            SHOP_TIME - timedelta(minutes=7),
            None,
            SHOP_TIME - timedelta(minutes=3),
        ],
    }


def test_reads_of_all_features(shop_store, items):
    row = items.read([5]).to_pylist()[0]
    assert row["embedding"] == shop_point(5)
    assert set(row) == {"id", "event_timestamp", *(field.name for field in items._table.features)}
    both = feast_vector.open_view(shop_store, "both")
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
        ([1.5], r"join key 'id' \(INT64\): 1.5 is not a whole number"),
        ({"id": [1, True]}, r"join key 'id' \(INT64\): True is not a whole number"),
        (np.array([0.5]), r"join key 'id' \(INT64\): 0.5 is not a whole number"),
        ([float("nan")], r"join key 'id' \(INT64\): nan is not a whole number"),
    ],
)
def test_wrong_keys(items, keys, pattern):
    for call in (items.read, items.delete):
        with pytest.raises(errors.InvalidInputError, match=pattern) as caught:
            call(keys)
        assert caught.value.kind == "invalid_key"


def test_whole_numbers_of_other_types_are_keys(items):
    for one in (7.0, np.float32(7), np.int8(7)):
        assert items.read(one, "stock")["stock"].to_pylist() == [7]


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (
            {"features": 5},
            "'items': features have to be the name of one, or a list of names, not 5",
        ),
        ({"features": ["title", 5]}, "features have to be"),
        ({"metric": 5}, "feature 'embedding': a metric is named by a string, not 5"),
        ({"metric": ""}, "feature 'embedding'"),
        ({"text": "half \ud800"}, r"half a surrogate pair: 'half \\ud800'"),
    ],
)
def test_wrong_arguments_of_a_search(items, arguments, pattern):
    with pytest.raises(errors.InvalidInputError, match=pattern):
        items.search([1.0, 2.0], **arguments)


def test_deleted_rows_are_gone_from_everywhere(shop_store, items):
    other = feast_vector.open_view(
        FeatureStore(config=shop_store.config.model_copy(deep=True)), "items"
    )
    assert len(other.search([3.0, 1.0], 100)) == SHOP_ROWS
    assert items.delete([7, 8, 99]) == 2
    assert items.delete([7]) == 0
    gone = {7, 8}
    left = [i for i in range(SHOP_ROWS) if i not in gone]
    for view in (items, other):
        assert view.search([3.0, 1.0], 100)["id"].to_pylist() == nearest([3, 1], left)
        assert set(view.search(text="item", top_k=100)["id"].to_pylist()) == set(left)
        found = view.search([3.0, 1.0], 100, filters={"type": "gte", "key": "id", "value": 0})
        assert set(found["id"].to_pylist()) == set(left)
        assert view.count() == len(left)
        assert view.read([7])["event_timestamp"].to_pylist() == [None]
    assert shop_store.get_online_features(["items:title"], [{"id": 7}, {"id": 9}]).to_dict()[
        "title"
    ] == [None, "item 9 red"]
    count = "SELECT count(*) FROM shop_items"

    assert sql_elsewhere(SimpleNamespace(config=shop_store.config), count) == [(len(left),)]
    # A row may come back.
    shop_store.write_to_online_store("items", shop_frame().iloc[7:8])
    assert items.search(shop_point(7), 1)["id"].to_pylist() == [7]


def test_counts(items):
    assert items.count() == SHOP_ROWS
    assert items.count({"type": "ne", "key": "stock", "value": 5}) == SHOP_ROWS - 2
    assert items.count({"type": "and", "filters": []}) == SHOP_ROWS


def test_sql_reads(shop_store):
    def sql(statement, *parameters):
        return feast_vector.sql(shop_store, statement, parameters, as_dict=True)

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
    assert feast_vector.sql(shop_store, "SELECT id FROM shop_items LIMIT 0").num_rows == 0


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
def test_sql_that_would_change_something_is_refused(shop_store, statement):
    with pytest.raises(
        errors.InvalidInputError, match="would change something; `sql` only reads"
    ) as caught:
        feast_vector.sql(shop_store, statement)
    assert caught.value.kind == "invalid_sql"
    assert feast_vector.open_view(shop_store, "items").count() == SHOP_ROWS


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
def test_wrong_sql(shop_store, statement, parameters, pattern):
    with pytest.raises(errors.InvalidInputError, match=pattern) as caught:
        feast_vector.sql(shop_store, statement, parameters)
    assert caught.value.kind == "invalid_sql"


# --- types


def test_every_type_has_its_arrow_type(tmp_path, shop_store):
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
    store = shop_store._get_provider().online_store
    data = [(key(id=1), row, at(0), None), (key(id=2), {}, at(0), None)]
    store.online_write_batch(shop_store.config, view, data, None)
    shop_store.registry.apply_feature_view(view, "shop")
    batch = feast_vector.open_view(shop_store, "types").read([1, 2])
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
