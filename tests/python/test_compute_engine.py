"""`batch_engine: vector`: the rows that Feast's own engine would have written, without protos."""

import math
from datetime import datetime, timedelta, timezone

import feast_vector
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import (
    BatchFeatureView,
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RepoConfig,
    StreamFeatureView,
    ValueType,
)
from feast.transformation.pandas_transformation import PandasTransformation
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    Set,
    String,
    UnixTimestamp,
    Uuid,
)
from feast_vector._dask import frames_named_by_identity
from feast_vector.compute_engine import VectorComputeEngine

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
END = datetime(2026, 2, 1, tzinfo=timezone.utc)
ITEM = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
ENGINES = ("local", "vector")


def make_store(folder, engine, offline="file", **options):
    """A feature store in a folder of its own."""
    folder = folder / f"{engine if isinstance(engine, str) else 'dict'}_{offline}"
    folder.mkdir(exist_ok=True)
    return FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "vector", "path": str(folder / "online.db")},
            offline_store={"type": offline},
            batch_engine=engine,
            entity_key_serialization_version=3,
            **options,
        )
    )


def contents(store, table="shop_items"):
    """All that is stored, but in which order it was written."""
    rows = feast_vector.sql(store, f"SELECT * FROM {table} ORDER BY entity_key")
    return rows.drop_columns(["row_id"]) if "row_id" in rows.schema.names else rows


def of_every_type(count):
    """A table with a column for each type, nulls among the values, in files as pandas writes them."""
    rng = np.random.default_rng(3)
    every = lambda step, value: [None if i % step == 2 else value(i) for i in range(count)]
    time = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "id": pa.array(rng.permutation(count)),
            "event_timestamp": pa.array([START + timedelta(minutes=i) for i in range(count)], time),
            "created": pa.array([START + timedelta(hours=i % 7) for i in range(count)], time),
            "int32": pa.array(every(5, lambda i: i - 50), pa.int32()),
            "int64": pa.array(every(7, lambda i: i * 10**12), pa.int64()),
            "float32": pa.array(every(5, lambda i: i / 7), pa.float32()),
            "float64": pa.array(every(9, lambda i: math.nan if i % 4 == 0 else i / 3)),
            "bool": pa.array(every(4, lambda i: i % 3 == 0)),
            "string": pa.array(every(6, lambda i: f"text {i}")),
            "bytes": pa.array(every(6, lambda i: bytes([i % 256]) * (i % 5))),
            "time": pa.array(every(6, lambda i: START + timedelta(seconds=i)), pa.timestamp("us")),
            "uuid": pa.array(every(6, lambda i: f"00000000-0000-4000-8000-{i:012}")),
            "decimal": pa.array(every(6, lambda i: f"{i}.{i}")),
            "json": pa.array(every(6, lambda i: f'{{"a": {i}}}')),
            "map": pa.array(every(6, lambda i: f'{{"a": {i}, "b": "x"}}')),
            "vector": pa.array([[i / 3, -i, 0.5] for i in range(count)], pa.list_(pa.float32())),
            "doubles": pa.array(every(5, lambda i: [i / 3] * (i % 4)), pa.list_(pa.float64())),
            "int32s": pa.array(every(5, lambda i: list(range(i % 4))), pa.list_(pa.int32())),
            "int64s": pa.array(every(5, lambda i: [i, -i]), pa.list_(pa.int64())),
            "bools": pa.array(every(5, lambda i: [i % 2 == 0]), pa.list_(pa.bool_())),
            "strings": pa.array(every(5, lambda i: [f"{i}", ""]), pa.list_(pa.string())),
            "times": pa.array(every(5, lambda i: [START]), pa.list_(pa.timestamp("us"))),
            "bytes_list": pa.array(every(5, lambda i: [b"a", b""]), pa.list_(pa.binary())),
            "set": pa.array(every(5, lambda i: ["a", f"{i}"]), pa.list_(pa.string())),
            "nothing": pa.nulls(count, pa.float64()),
        }
    )


TYPES = {
    "int32": Int32,
    "int64": Int64,
    "float32": Float32,
    "float64": Float64,
    "bool": Bool,
    "string": String,
    "bytes": Bytes,
    "time": UnixTimestamp,
    "uuid": Uuid,
    "decimal": Decimal,
    "json": Json,
    "map": Map,
    "vector": Array(Float32),
    "doubles": Array(Float64),
    "int32s": Array(Int32),
    "int64s": Array(Int64),
    "bools": Array(Bool),
    "strings": Array(String),
    "times": Array(UnixTimestamp),
    "bytes_list": Array(Bytes),
    "set": Set(String),
    "nothing": Float64,
}


def items(path, types=None, created="created", kind=FeatureView, **options):
    """A view of the file."""
    source = FileSource(
        path=str(path), timestamp_field="event_timestamp", created_timestamp_column=created
    )
    return kind(
        name="items",
        entities=options.pop("entities", [ITEM]),
        ttl=timedelta(days=365),
        source=options.pop("source", source),
        schema=[Field(name=name, dtype=dtype) for name, dtype in (types or TYPES).items()],
        **options,
    )


def simple(count=300, first=0):
    """A table of two features."""
    ids = range(first, first + count)
    return pa.table(
        {
            "id": pa.array(ids),
            "number": pa.array([i * 2 for i in ids]),
            "title": [f"t{i}" for i in ids],
            "event_timestamp": pa.array(
                [START + timedelta(minutes=i) for i in ids], pa.timestamp("us", "UTC")
            ),
        }
    )


SIMPLE = {"number": Int64, "title": String}


@pytest.mark.parametrize("offline", ["file", "duckdb"])
def test_rows_of_every_type_are_those_of_feasts_engine(tmp_path, offline):
    path = tmp_path / "items.parquet"
    # Several row groups, so that there are several chunks.
    pq.write_table(of_every_type(200), path, row_group_size=64)
    stored = []
    for engine in ENGINES:
        store = make_store(tmp_path, engine, offline)
        view = items(path)
        view.schema.append(Field(name="id", dtype=Int64))
        store.apply([ITEM, view])
        store.materialize(START, END)
        stored.append(contents(store))
    theirs, ours = stored
    assert ours.num_rows == 200
    for name in theirs.schema.names:
        assert ours.column(name).equals(theirs.column(name)), name


def test_whole_numbers_beside_nulls_keep_all_their_digits(tmp_path):
    path = tmp_path / "items.parquet"
    table = simple(3).set_column(1, "number", pa.array([2**63 - 1, None, 2**53 + 1]))
    pq.write_table(table, path)
    store = make_store(tmp_path, "vector", "duckdb")
    store.apply([ITEM, items(path, SIMPLE, created=None)])
    store.materialize(START, END)
    assert contents(store).column("number").to_pylist() == [2**63 - 1, None, 2**53 + 1]


@pytest.mark.parametrize("pull_latest", [True, False])
def test_the_latest_row_of_an_entity_is_written(tmp_path, pull_latest):
    path = tmp_path / "items.parquet"
    table = of_every_type(200)
    # Each entity four times, in no order; of equal event times the one created last counts.
    ids = pa.array(np.arange(200) % 50)
    minutes = pa.array(
        [
            START + timedelta(minutes=int(i) // 100)
            for i in np.random.default_rng(1).permutation(200)
        ],
        pa.timestamp("us", "UTC"),
    )
    created = pa.array(
        [START + timedelta(seconds=i) for i in range(200)], pa.timestamp("us", "UTC")
    )
    for at, (name, column) in enumerate(
        {"id": ids, "event_timestamp": minutes, "created": created}.items()
    ):
        table = table.set_column(at, name, column)
    pq.write_table(table, path)
    stored = []
    for engine in ENGINES:
        store = make_store(tmp_path, engine, materialization={"pull_latest_features": pull_latest})
        store.apply([ITEM, items(path, {"int64": Int64, "string": String})])
        store.materialize(START, END)
        stored.append(contents(store))
    theirs, ours = stored
    assert ours.num_rows == 50
    assert ours.column("created_timestamp").equals(theirs.column("created_timestamp"))
    assert ours.equals(theirs)


def double(frame):
    """A transformation."""
    frame["number"] = frame["number"] * 2
    return frame


def test_transformed_views(tmp_path):
    path = tmp_path / "items.parquet"
    pq.write_table(simple(), path)
    stored = []
    for engine in ENGINES:
        store = make_store(tmp_path, engine)
        view = items(
            path,
            SIMPLE,
            created=None,
            kind=BatchFeatureView,
            mode="pandas",
            udf=double,
            udf_string="double",
            feature_transformation=PandasTransformation(double, "double"),
            online=True,
        )
        store.apply([ITEM, view])
        store.materialize(START, END)
        stored.append(contents(store))
    theirs, ours = stored
    assert ours.column("number").to_pylist()[3] % 4 == 0
    assert ours.equals(theirs)


def test_stream_views_field_mapping_and_no_entity(tmp_path):
    path = tmp_path / "items.parquet"
    pq.write_table(simple().rename_columns(["key", "raw", "title", "event_timestamp"]), path)
    mapped = FileSource(
        path=str(path),
        timestamp_field="event_timestamp",
        field_mapping={"raw": "number", "key": "id"},
    )
    plain = tmp_path / "plain.parquet"
    pq.write_table(simple(), plain)
    batch = FileSource(path=str(plain), timestamp_field="event_timestamp")
    stored = []
    for engine in ENGINES:
        store = make_store(tmp_path, engine)
        views = [
            items(path, SIMPLE, source=mapped),
            items(plain, SIMPLE, created=None, entities=[]),
            items(
                plain,
                SIMPLE,
                kind=StreamFeatureView,
                source=PushSource(name="push", batch_source=batch),
            ),
        ]
        for view, name in zip(views, ("items", "global", "stream"), strict=True):
            view.name = name
        store.apply([ITEM, *views])
        store.materialize(START, END)
        stored.append([contents(store, f"shop_{view.name}") for view in views])
    assert [table.num_rows for table in stored[1]] == [300, 1, 300]
    for theirs, ours in zip(*stored, strict=True):
        assert ours.equals(theirs)


def test_progress_is_shown(tmp_path, capsys):
    path = tmp_path / "items.parquet"
    pq.write_table(simple(), path)
    store = make_store(tmp_path, "vector", materialization={"online_write_batch_size": 90})
    store.apply([ITEM, items(path, SIMPLE, created=None)])
    capsys.readouterr()
    store.materialize(START, END)
    assert "300/300" in capsys.readouterr().err


def test_a_batch_that_fails_leaves_those_before_it_and_can_be_repeated(tmp_path):
    path = tmp_path / "items.parquet"
    rows = simple()
    vectors = [[1.0, 2.0]] * 299
    good = rows.append_column("embedding", pa.array([*vectors, [3.0, 4.0]]))
    pq.write_table(rows.append_column("embedding", pa.array([*vectors, [3.0]])), path)
    embedding = Field(name="embedding", dtype=Array(Float32), vector_index=True, vector_length=2)
    view = items(path, SIMPLE, created=None)
    view.schema.append(embedding)
    view.features.append(embedding)
    store = make_store(tmp_path, "vector", materialization={"online_write_batch_size": 100})
    store.apply([ITEM, view])
    with pytest.raises(feast_vector.InvalidInputError) as caught:
        store.materialize(START, END)
    for part in ("items", "embedding", "vector of 1 values", "vector_length=2"):
        assert part in str(caught.value)
    assert contents(store).num_rows == 200
    pq.write_table(good, path)
    store.materialize(START, END)
    assert contents(store).num_rows == 300


def test_values_that_cannot_be_written_say_where(tmp_path):
    path = tmp_path / "items.parquet"
    pq.write_table(simple().set_column(1, "number", pa.array(["x"] * 300)), path)
    store = make_store(tmp_path, "vector")
    store.apply([ITEM, items(path, SIMPLE, created=None)])
    with pytest.raises(
        feast_vector.InvalidInputError,
        match=r"view 'items', feature 'number' \(INT64\): values of Arrow's type .*string.*'x'",
    ):
        store.materialize(START, END)


@pytest.mark.parametrize(
    "engine",
    [
        "vector",
        {"type": "vector", "backend": "pandas"},
        {"type": "feast_vector.compute_engine.VectorComputeEngine"},
    ],
)
def test_it_is_chosen_by_one_line(tmp_path, engine):
    store = make_store(tmp_path, engine)
    assert type(store._get_provider().batch_engine) is VectorComputeEngine
    assert store.config.batch_engine.type


def test_other_online_stores_are_written_as_feast_does(tmp_path):
    path = tmp_path / "items.parquet"
    pq.write_table(simple(), path)
    config = RepoConfig(
        project="shop",
        provider="local",
        registry=str(tmp_path / "registry.db"),
        online_store={"type": "sqlite", "path": str(tmp_path / "sqlite.db")},
        batch_engine="vector",
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply([ITEM, items(path, SIMPLE, created=None)])
    store.materialize(START, END)
    found = store.get_online_features(["items:number"], [{"id": 7}]).to_dict()
    assert found["number"] == [14]
    store._get_provider().online_store._conn.close()


def test_what_is_to_be_written_offline_too_is_handed_over(tmp_path, monkeypatch):
    path = tmp_path / "items.parquet"
    pq.write_table(simple(20), path)
    handed = []
    for engine in ENGINES:
        store = make_store(tmp_path, engine)
        # Feast's file store refuses what Feast's engine read from it, for the columns' order.
        monkeypatch.setattr(
            type(store._get_provider().offline_store),
            "offline_write_batch",
            staticmethod(lambda config, feature_view, table, progress: handed.append(table)),
        )
        store.apply([ITEM, items(path, SIMPLE, created=None, offline=True)])
        store.materialize(START, END)
        assert contents(store).num_rows == 20
    theirs, ours = (table.select(simple(1).column_names).sort_by("id") for table in handed)
    assert ours.equals(theirs)


def test_dask_names_frames_as_ever_once_they_are_read():
    from dask.tokenize import normalize_token

    frames = [pd.DataFrame({"a": [[1.0], [2.0]]}) for _ in range(2)]
    before = normalize_token(frames[0])
    with frames_named_by_identity(), frames_named_by_identity():
        names = [normalize_token(frame) for frame in (*frames, *frames)]
    assert names[:2] == names[2:]
    assert names[0] != names[1]
    assert normalize_token(frames[0]) == before != names[0]
