"""`VectorView.write_arrow`: Arrow data into a view, exactly, in whole batches."""

import math
import uuid
from datetime import timedelta

import duckdb
import feast_vector
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import NOON
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Float32, Float64, Int64, Map, String
from feast_vector import InvalidInputError, _arrow

TIME = pa.timestamp("us", "UTC")


@pytest.fixture
def store(tmp_path):
    """A store with a view that has an entity, and one that has none."""
    store = FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(tmp_path / "registry.db"),
            online_store={"type": "vector", "path": str(tmp_path / "online.db")},
            entity_key_serialization_version=3,
        )
    )
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    source = tmp_path / "items.parquet"
    columns = {"id": [0], "price": [0.0], "time": [NOON], "made": [NOON]}
    pd.DataFrame(columns).to_parquet(source)
    items = FeatureView(
        name="items",
        entities=[item],
        schema=[
            Field(name="title", dtype=String),
            Field(name="price", dtype=Float64),
            Field(name="more", dtype=Map),
            Field(
                name="embedding",
                dtype=Array(Float32),
                vector_index=True,
                vector_length=2,
                vector_search_metric="L2",
            ),
        ],
        source=FileSource(
            path=str(source), timestamp_field="time", created_timestamp_column="made"
        ),
    )
    single = FeatureView(
        name="single",
        entities=[],
        schema=[Field(name="price", dtype=Int64)],
        source=FileSource(path=str(source), timestamp_field="time"),
    )
    store.apply([item, items, single])
    return store


@pytest.fixture
def items(store):
    """The view with an entity."""
    return feast_vector.open_view(store, "items")


def rows(count=10, first=0, minutes=0, **columns):
    """A table of rows."""
    ids = range(first, first + count)
    time = NOON + timedelta(minutes=minutes)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "title": [f"t{i}" for i in ids],
            "price": [i / 2 for i in ids],
            "embedding": pa.array([[i, 1.0] for i in ids], pa.list_(pa.float32(), 2)),
            "time": pa.array([time] * count, TIME),
            **columns,
        }
    )


def prices(items, ids=range(10)):
    """What is stored."""
    return items.read(list(ids), ["price"], as_dict=True)["price"]


@pytest.mark.parametrize(
    "form",
    [
        lambda table: table,
        lambda table: table.combine_chunks().to_batches()[0],
        lambda table: table.to_reader(max_chunksize=3),
        pl.from_arrow,
        lambda table: table.to_pandas(),
        duckdb.from_arrow,
    ],
    ids=["table", "batch", "reader", "polars", "pandas", "duckdb"],
)
def test_whatever_speaks_arrow_is_written(items, form):
    table = rows()
    assert items.write_arrow(form(table)) == {"written": 10, "ignored": 0}
    assert prices(items) == [i / 2 for i in range(10)]
    found = items.search([3.0, 1.0], 2, features=["title"], as_dict=True)
    assert found["title"][0] == "t3"
    assert found["event_timestamp"][0] == NOON


def test_features_that_are_left_out_stay_and_older_rows_are_ignored(items):
    items.write_arrow(rows())
    some = (
        rows(4, minutes=1)
        .select(["id", "time", "price"])
        .set_column(2, "price", pa.array([9.0, None, math.nan, -0.0]))
    )
    older = rows(3, first=8, minutes=-1)
    assert items.write_arrow(some) == {"written": 4, "ignored": 0}
    assert items.write_arrow(older) == {"written": 1, "ignored": 2}
    answer = items.read([0, 1, 2, 3, 8, 10], ["title", "price"], as_dict=True)
    assert answer["title"] == ["t0", "t1", "t2", "t3", "t8", "t10"]
    nine, null, nan, zero, *_ = answer["price"]
    assert (nine, null) == (9.0, None)
    assert math.isnan(nan)
    assert math.copysign(1, zero) == -1


def test_values_of_every_kind_and_the_created_time(store, items):
    more = pa.array([{"a": 1}, None], pa.map_(pa.string(), pa.int64()))
    made = pa.array([NOON, None], TIME)
    items.write_arrow(rows(2, more=more, made=made))
    found = feast_vector.sql(store, "SELECT created_timestamp FROM shop_items ORDER BY id")
    assert found["created_timestamp"].to_pylist() == [int(NOON.timestamp() * 1e6), None]
    answer = store.get_online_features(["items:more"], [{"id": 0}, {"id": 1}]).to_dict()
    assert answer["more"] == [{"a": 1}, None]


def test_a_view_without_entities(store):
    single = feast_vector.open_view(store, "single")
    table = pa.table({"price": [3, 4], "time": pa.array([NOON, NOON + timedelta(1)], TIME)})
    assert single.write_arrow(table) == {"written": 2, "ignored": 0}
    assert single.read([{}], as_dict=True)["price"] == [4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["id"]), r"view 'items': the data has no column 'id'; it has"),
        (lambda t: t.drop_columns(["time"]), "no column 'time'"),
        (lambda t: t.append_column("prize", t["price"]), "column 'prize', which the view does not"),
        (lambda t: t.append_column("title", t["title"]), "has 'title' more than once"),
        (
            lambda t: t.set_column(1, "title", pa.array([[1]] * 10)),
            r"feature 'title' \(STRING\).*list<",
        ),
        (
            lambda t: t.set_column(3, "embedding", pa.array([[1.0, None]] * 10)),
            r"feature 'embedding' \(FLOAT_LIST\).*a list holds null",
        ),
        (
            lambda t: t.set_column(3, "embedding", pa.array([[1.0]] * 10)),
            "a vector of 1 values where the feature declares vector_length=2",
        ),
        (
            lambda t: t.set_column(0, "id", pa.array([None, *range(9)], pa.int64())),
            "join key 'id'",
        ),
        (
            lambda t: t.set_column(4, "time", pa.array([NOON] * 9 + [None], TIME)),
            "column 'time': row 9 has no event timestamp",
        ),
        (lambda t: t.set_column(4, "time", pa.array(["soon"] * 10)), "'time' .*no timestamps"),
    ],
)
def test_data_that_does_not_fit_is_refused_whole(items, change, message):
    with pytest.raises(InvalidInputError, match=message):
        items.write_arrow(change(rows()))
    assert items.count() == 0


def test_what_is_no_arrow_data(items):
    with pytest.raises(InvalidInputError, match=r"'items': list is no Arrow data"):
        items.write_arrow([{"id": 1}])
    with pytest.raises(InvalidInputError, match="batch_size has to be a whole number"):
        items.write_arrow(rows(), batch_size=0)


def test_batches_are_written_whole_or_not_at_all(items):
    vectors = [[i, 1.0] for i in range(50)]
    vectors[35] = [1.0]
    table = rows(50).set_column(3, "embedding", pa.array(vectors, pa.list_(pa.float32())))
    with pytest.raises(
        InvalidInputError, match=r"vector of 1 values.*the first 30 rows are written"
    ):
        items.write_arrow(table, batch_size=10)
    assert items.count() == 30


def test_a_stream_is_read_piece_by_piece(items):
    taken = []

    def batches():
        for first in range(0, 100_000, 1000):
            # What is stored is never far behind what was taken.
            assert first - items.count() <= 20_000
            taken.append(first)
            yield rows(1000, first).to_batches()[0]

    reader = pa.RecordBatchReader.from_batches(rows(1).schema, batches())
    assert items.write_arrow(reader, batch_size=10_000)["written"] == 100_000
    assert len(taken) == 100
    assert items.count() == 100_000
    assert np.allclose(prices(items, [0, 99_999]), [0, 99_999 / 2])


def test_an_error_of_the_streams_own_comes_through(items):
    def batches():
        yield rows(10).to_batches()[0]
        message = "the disk is gone"
        raise OSError(message)

    reader = pa.RecordBatchReader.from_batches(rows(1).schema, batches())
    with pytest.raises(Exception, match="the disk is gone"):
        items.write_arrow(reader, batch_size=5)
    assert items.count() == 10


def test_arrows_uuids_in_a_text_are_their_text(store):
    items = feast_vector.open_view(store, "items")
    one = uuid.UUID(int=5)
    table = pa.table(
        {
            "id": [1, 2],
            "title": pa.array([one.bytes, None], pa.uuid()),
            "time": pa.array([NOON, NOON], TIME),
        }
    )
    items.write_arrow(table)
    assert items.read([1, 2], "title")["title"].to_pylist() == [str(one), None]


def test_lists_of_arrows_uuids_are_texts():
    one = uuid.UUID(int=5)
    lists = pa.ListArray.from_arrays([0, 1, 1], pa.array([one.bytes], pa.uuid()))
    assert _arrow.with_uuids_as_text(lists).to_pylist() == [[str(one)], []]
    for other in (pa.array([[1.0]], pa.list_(pa.float32(), 1)), pa.array([{"a": 1}])):
        assert _arrow.with_uuids_as_text(other) is other
