"""Rows of Feast's own sqlite online store, carried into ours."""

import sqlite3
import struct
from datetime import datetime, timezone

import feast_vector
import pytest
from conftest import NOON, at, feasts_own, integer, key, text, vector
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.infra.online_stores.helpers import get_online_store_from_config
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Map, Value
from feast.types import Array, Float32, Int64, String
from feast_vector import cli
from feast_vector.errors import InvalidInputError, NotFoundError, StorageError

YAML = """
project: shop
provider: local
registry: registry.db
entity_key_serialization_version: 3
online_store:
  type: {type}
  path: {path}
"""


def repo(folder, kind, path="online.db"):
    (folder / "feature_store.yaml").write_text(YAML.format(type=kind, path=path))
    store = FeatureStore(folder)
    if kind == "sqlite":
        feasts_own.append(store._get_provider().online_store)
    source = FileSource(path=str(folder / "nowhere.parquet"), timestamp_field="event_timestamp")
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
    both = [Field(name="id", dtype=Int64), Field(name="shop", dtype=String)]
    fields = [
        Field(name="name", dtype=String),
        Field(name="number", dtype=Int64),
        Field(name="embedding", dtype=Array(Float32), vector_index=True, vector_length=2),
    ]
    views = [
        FeatureView(name="items", entities=[item], schema=[both[0], *fields], source=source),
        FeatureView(
            name="pairs", entities=[item, shop], schema=[*both, *fields[:2]], source=source
        ),
        FeatureView(name="all", entities=[], schema=fields[:2], source=source),
    ]
    return store, [item, shop, *views]


def write(store, view, *rows):
    online = get_online_store_from_config(store.config.online_store)
    table = store.get_feature_view(view)
    online.online_write_batch(store.config, table, [(*row, None)[:4] for row in rows], None)
    if getattr(online, "_conn", None):
        online._conn.close()


def read(store, view, *keys):
    online = get_online_store_from_config(store.config.online_store)
    rows = online.online_read(store.config, store.get_feature_view(view), list(keys), None)
    if getattr(online, "_conn", None):
        online._conn.close()
    return rows


PAIRS = [key(id=i, shop=f"s{i}") for i in range(3)]
DUMMY = EntityKey(join_keys=["__dummy_id"], entity_values=[text("")])
ODD = Value(map_val=Map(val={"a": integer(1)}))


@pytest.fixture
def filled(tmp_path):
    """A repo that Feast's sqlite store has filled."""
    store, objects = repo(tmp_path, "sqlite")
    store.apply(objects)
    items = [
        (key(id=i), {"name": text(f"n{i}"), "number": integer(i), "embedding": vector(i, 1)}, at(i))
        for i in range(3000)
    ]
    items[5] = (key(id=5), {"name": Value(), "number": ODD}, at(5), at(6))
    write(store, "items", *items)
    write(
        store,
        "pairs",
        *[(pair, {"name": text("p"), "number": integer(7)}, at(0)) for pair in PAIRS],
    )
    write(store, "all", (DUMMY, {"name": text("one"), "number": integer(1)}, at(0)))
    return tmp_path


def asked():
    return {"items": [key(id=i) for i in (0, 5, 7, 2999, 5000)], "pairs": PAIRS, "all": [DUMMY]}


def answers(store):
    return {
        view: [
            (time, {n: v.SerializeToString() for n, v in (row or {}).items()})
            for time, row in read(store, view, *keys)
        ]
        for view, keys in asked().items()
    }


@pytest.mark.parametrize("path", ["online.db", "other.db"])
def test_what_feasts_store_answered_ours_answers_after_an_import(filled, path):
    before = answers(repo(filled, "sqlite")[0])
    assert before["items"][3][0] == at(2999)
    store, objects = repo(filled, "vector", path)
    store.apply(objects)
    source = None if path == "online.db" else filled / "online.db"
    heard = []
    report = feast_vector.import_sqlite(store, source, progress=lambda *args: heard.append(args))
    counts = {view["view"]: (view["entities"], view["written"]) for view in report["views"]}
    assert counts == {"items": (3000, 3000), "pairs": (3, 3), "all": (1, 1)}
    assert report["unknown_tables"] == {}
    assert heard[-1][1] == heard[-1][2]
    assert answers(store) == before
    # Once more changes nothing, and does not undo what is newer.
    write(store, "items", (key(id=7), {"name": text("newer")}, at(9000)))
    report = feast_vector.import_sqlite(store, source, views=["items"])
    assert [(view["written"], view["ignored"]) for view in report["views"]] == [(2999, 1)]
    assert read(store, "items", key(id=7))[0][1]["name"].string_val == "newer"


def test_rows_of_nothing_known_are_reported(filled):
    connection = sqlite3.connect(filled / "online.db")
    create = "CREATE TABLE shop_old (entity_key BLOB, feature_name TEXT, value BLOB, event_ts timestamp, created_ts timestamp)"
    connection.execute(create)
    connection.execute("INSERT INTO shop_old VALUES (x'00', 'a', x'', 1, NULL)")
    columns = "(entity_key, feature_name, value, event_ts)"
    known = "SELECT entity_key FROM shop_items LIMIT 1"
    connection.execute(f"INSERT INTO shop_items {columns} VALUES (({known}), 'gone', x'', 1)")
    connection.execute(f"INSERT INTO shop_items {columns} VALUES (x'ffff', 'name', x'', 1)")
    other = struct.pack("<I", 1) + struct.pack("<2I", 2, 4) + b"user" + struct.pack("<2Iq", 4, 8, 1)
    connection.execute(f"INSERT INTO shop_items {columns} VALUES (?, 'name', x'', 1)", [other])
    connection.commit()
    connection.close()
    store, objects = repo(filled, "vector")
    store.apply(objects)
    report = feast_vector.import_sqlite(store)
    assert report["unknown_tables"] == {"shop_old": 1}
    items = next(view for view in report["views"] if view["view"] == "items")
    assert items["unknown_features"] == {"gone": 1}
    assert items["entities"] == 3000
    assert len(items["unreadable"]) == 2
    assert any("join keys user, and the view has id" in problem for problem in items["unreadable"])


def test_old_keys_times_and_vectors_are_understood(filled):
    """Serialization version 2, times as text, and a vector without a value."""
    two = struct.pack("<I", 2) + b"id" + struct.pack("<2Iq", 4, 8, 9001)
    pair = struct.pack("<I", 2) + b"id" + struct.pack("<I", 2) + b"shop"
    pair += struct.pack("<2Iq", 4, 8, 5) + struct.pack("<2I", 2, 1) + b"x"
    connection = sqlite3.connect(filled / "online.db")
    connection.execute(
        "INSERT INTO shop_items (entity_key, feature_name, value, event_ts) VALUES (?, 'name', ?, ?)",
        [two, text("old").SerializeToString(), "2026-03-01 12:00:00.25"],
    )
    connection.execute(
        "INSERT INTO shop_items (entity_key, feature_name, vector_value, event_ts) VALUES (?, 'embedding', ?, ?)",
        [two, struct.pack("<2f", 1, 2), "2026-03-01T12:00:00+00:00"],
    )
    connection.execute(
        "INSERT INTO shop_pairs (entity_key, feature_name, value, event_ts) VALUES (?, 'name', ?, 0)",
        [pair, text("pair").SerializeToString()],
    )
    connection.commit()
    connection.close()
    store, objects = repo(filled, "vector")
    store.apply(objects)
    feast_vector.import_sqlite(store)
    time, row = read(store, "items", key(id=9001))[0]
    assert time == NOON.replace(microsecond=250_000)
    assert row["name"].string_val == "old"
    assert list(row["embedding"].float_list_val.val) == [1, 2]
    time, row = read(store, "pairs", key(id=5, shop="x"))[0]
    assert row["name"].string_val == "pair"
    # What Feast's store reads as this time.
    assert time == datetime.fromtimestamp(0).replace(tzinfo=timezone.utc)  # noqa: DTZ006


def test_mistakes_are_said(filled):
    store, objects = repo(filled, "vector", "other.db")
    store.apply(objects)
    with pytest.raises(StorageError, match="there is no file"):
        feast_vector.import_sqlite(store, filled / "nowhere.db")
    (filled / "text.db").write_text("not a database" * 100)
    with pytest.raises(StorageError, match="cannot be read"):
        feast_vector.import_sqlite(store, filled / "text.db")
    with pytest.raises(NotFoundError):
        feast_vector.import_sqlite(store, filled / "online.db", views=["itmes"])
    with pytest.raises(InvalidInputError, match="there is no table 'shop_items'"):
        feast_vector.import_sqlite(store, views=["items"])
    assert not (filled / "nowhere.db").exists()


def test_the_command(filled, capsys):
    store, objects = repo(filled, "vector")
    store.apply(objects)
    assert cli.main(["-c", str(filled), "import"]) == 0
    out = capsys.readouterr().out
    assert "items: 3,000 entity rows read, 3,000 written, 0 older than what is stored" in out
    assert cli.main(["-c", str(filled), "import", "pairs"]) == 0
    assert capsys.readouterr().out.startswith("pairs: 3 entity rows read, 3 written")
    assert cli.main(["-c", str(filled), "import", "--from", str(filled / "nowhere.db")]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_a_store_of_another_kind_is_refused(tmp_path):
    store, objects = repo(tmp_path, "sqlite")
    store.apply(objects)
    with pytest.raises(InvalidInputError, match="type: vector"):
        feast_vector.import_sqlite(store)
