"""`write_arrow` over every Arrow type and every Feast type: the exact value, or an error."""

import datetime as dt
import decimal
import json
import math
import uuid

import feast_vector
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import NOON
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
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
    TimeUuid,
    UnixTimestamp,
    Uuid,
)
from feast_vector import InvalidInputError

D = decimal.Decimal
UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
UTC = dt.timezone.utc
DAY = dt.datetime(2024, 1, 1, tzinfo=UTC)
SECONDS = int(DAY.timestamp())

SCALARS = {
    "int32": Int32,
    "int64": Int64,
    "float": Float32,
    "double": Float64,
    "bool": Bool,
    "string": String,
    "bytes": Bytes,
    "time": UnixTimestamp,
    "uuid": Uuid,
    "time_uuid": TimeUuid,
    "decimal": Decimal,
    "json": Json,
}
ITEMS = {name: kind for name, kind in SCALARS.items() if name != "json"}
FEATURES = {
    **SCALARS,
    **{f"{name}_list": Array(kind) for name, kind in ITEMS.items()},
    **{f"{name}_set": Set(kind) for name, kind in ITEMS.items()},
    "map": Map,
}

WHOLE = {"int32", "int64", "float", "double"}

# An Arrow array of one value, and features that take it, with what they answer. Every other feature
# has it exactly, too, or refuses it.
ACCEPTED = {
    **{
        str(kind): (
            pa.array([7], kind),
            {
                **dict.fromkeys(WHOLE, 7),
                "string": "7",
                "decimal": D(7),
                "json": 7,
                "time": dt.datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC),
            },
        )
        for kind in (
            pa.int8(),
            pa.int16(),
            pa.int32(),
            pa.int64(),
            pa.uint8(),
            pa.uint16(),
            pa.uint32(),
            pa.uint64(),
        )
    },
    "one": (pa.array([1], pa.int8()), {"bool": True, "double": 1.0, "string": "1"}),
    "2^31": (pa.array([2**31]), {"int64": 2**31, "float": 2.0**31, "double": 2.0**31}),
    "2^24 + 1": (pa.array([2**24 + 1]), {"int32": 2**24 + 1, "double": 2.0**24 + 1}),
    "2^53 + 1": (pa.array([2**53 + 1]), {"int64": 2**53 + 1, "string": str(2**53 + 1)}),
    "2^64 - 1": (pa.array([2**64 - 1], pa.uint64()), {"decimal": D(2**64 - 1)}),
    **{
        str(kind): (
            pa.array([np.float16(2)], kind),
            {**dict.fromkeys(WHOLE, 2), "time": dt.datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)},
        )
        for kind in (pa.float16(), pa.float32(), pa.float64())
    },
    "half": (pa.array([0.5]), {"float": 0.5, "double": 0.5}),
    "tenth": (pa.array([0.1]), {"float": float(np.float32(0.1)), "double": 0.1}),
    "1e300": (pa.array([1e300]), {"double": 1e300}),
    "infinity": (pa.array([math.inf]), {"float": math.inf, "double": math.inf}),
    **{
        str(kind): (
            pa.array([D("12.50")], kind),
            {"decimal": D("12.50"), "double": 12.5, "float": 12.5},
        )
        for kind in (
            pa.decimal32(6, 2),
            pa.decimal64(6, 2),
            pa.decimal128(6, 2),
            pa.decimal256(60, 2),
        )
    },
    "whole decimal": (
        pa.array([D("12.00")]),
        {**dict.fromkeys(WHOLE, 12), "decimal": D("12.00")},
    ),
    "decimal of hundreds": (
        pa.array([D(1200)], pa.decimal128(4, -2)),
        {**dict.fromkeys(WHOLE, 1200), "decimal": D(1200)},
    ),
    "bool": (pa.array([True]), {"bool": True}),
    **{
        str(kind): (pa.array(["é"], kind), {"string": "é"})
        for kind in (pa.string(), pa.large_string(), pa.string_view())
    },
    **{
        str(kind): (pa.array(["é".encode()], kind), {"string": "é", "bytes": "é".encode()})
        for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2))
    },
    "bytes of no text": (pa.array([b"\xff"]), {"bytes": b"\xff"}),
    "uuid": (pa.array([str(UUID)]), {"uuid": UUID, "time_uuid": UUID, "string": str(UUID)}),
    "uuid bytes": (
        pa.array([UUID.bytes[:-1] + b"\xff"], pa.binary(16)),
        {"uuid": uuid.UUID(bytes=UUID.bytes[:-1] + b"\xff"), "bytes": UUID.bytes[:-1] + b"\xff"},
    ),
    "decimal text": (pa.array(["1.50"]), {"decimal": D("1.50"), "string": "1.50", "json": 1.5}),
    "json text": (pa.array(['{"a": 1}']), {"json": {"a": 1}, "string": '{"a": 1}'}),
    "json bytes": (pa.array([b"[1]"]), {"json": [1], "string": "[1]", "bytes": b"[1]"}),
    "date32": (pa.array([DAY.date()]), {"time": DAY}),
    "date64": (pa.array([DAY.date()], pa.date64()), {"time": DAY}),
    **{
        f"{unit} {zone}": (pa.array([DAY], pa.timestamp(unit, zone)), {"time": DAY})
        for unit in ("s", "ms", "us", "ns")
        for zone in (None, "UTC", "Asia/Tokyo")
    },
    "seconds": (pa.array([SECONDS]), {"time": DAY, "int64": SECONDS}),
    "milliseconds": (pa.array([SECONDS * 1000]), {"int64": SECONDS * 1000}),
    "float milliseconds": (pa.array([SECONDS * 1000.0]), {"int64": SECONDS * 1000}),
    "year 31690708": (pa.array([10**15]).cast(pa.timestamp("s")), {}),
    "time32": (pa.array([dt.time(1)], pa.time32("s")), {}),
    "time64": (pa.array([dt.time(1)], pa.time64("us")), {}),
    "duration": (pa.array([dt.timedelta(1)]), {}),
    "interval": (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), {}),
    "dictionary": (pa.array(["é"]).dictionary_encode(), {"string": "é"}),
    "dictionary of ints": (pa.array([7]).dictionary_encode(), {"int64": 7, "string": "7"}),
    "runs": (pa.RunEndEncodedArray.from_arrays([1], ["é"]), {"string": "é"}),
    "struct": (pa.array([{"a": 1}]), {"map": {"a": 1}, "json": {"a": 1}}),
    "map": (
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        {"map": {"a": 1}, "json": {"a": 1}},
    ),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a view of all features."""
    folder = tmp_path_factory.mktemp("store")
    store = FeatureStore(
        config=RepoConfig(
            project="p",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={
                "type": "vector",
                "path": str(folder / "online.db"),
                "durability": "off",
            },
            entity_key_serialization_version=3,
        )
    )
    entity = Entity(name="id", join_keys=["id"], value_type=ValueType.INT64)
    frame = pd.DataFrame({"id": [0], "event_timestamp": [NOON]})
    frame.to_parquet(folder / "rows.parquet")
    view = FeatureView(
        name="v",
        entities=[entity],
        schema=[Field(name=name, dtype=kind) for name, kind in FEATURES.items()],
        source=FileSource(path=str(folder / "rows.parquet"), timestamp_field="event_timestamp"),
    )
    store.apply([entity, view])
    return store


@pytest.fixture(scope="module")
def view(store):
    """The view."""
    return feast_vector.open_view(store, "v")


def table(**columns):
    """A table of the columns, keys and times."""
    count = len(next(iter(columns.values())))
    times = pa.array([NOON] * count, pa.timestamp("us", "UTC"))
    return pa.table({"id": range(count), "event_timestamp": times} | columns)


def written(store, view, feature, column):
    """What Feast reads after a column was written; the native read has it as well."""
    view.write_arrow(table(**{feature: column}))
    view.read(list(range(len(column))), [feature], as_dict=True)
    keys = [{"id": number} for number in range(len(column))]
    return store.get_online_features([f"v:{feature}"], keys).to_dict()[feature]


@pytest.mark.parametrize("case", ACCEPTED)
@pytest.mark.parametrize("feature", FEATURES)
def test_a_value_is_exact_or_an_error(store, view, feature, case):
    column, accepted = ACCEPTED[case]
    try:
        (found,) = written(store, view, feature, column)
    except InvalidInputError as error:
        check_message(error, feature, column)
        assert feature not in accepted
        return
    if feature in accepted:
        assert found == accepted[feature]
    else:
        (value,) = column.to_pylist()
        assert found is not None
        assert is_the_same(feature, found, value)


@pytest.mark.parametrize("case", ACCEPTED)
@pytest.mark.parametrize("item", ITEMS)
@pytest.mark.parametrize("form", ["list", "large", "fixed", "view", "large view"])
def test_an_item_of_a_list_is_what_it_would_be_alone(store, view, item, case, form):
    column, accepted = ACCEPTED[case]
    items = pa.concat_arrays([column, column])
    lists = {
        "list": lambda: pa.ListArray.from_arrays([0, 2], items),
        "large": lambda: pa.LargeListArray.from_arrays([0, 2], items),
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(items, 2),
        "view": lambda: pa.ListViewArray.from_arrays([0], [2], items),
        "large view": lambda: pa.LargeListViewArray.from_arrays([0], [2], items),
    }[form]()
    for feature in (f"{item}_list", f"{item}_set"):
        try:
            (found,) = written(store, view, feature, lists)
        except InvalidInputError as error:
            check_message(error, feature, lists)
            assert item not in accepted
            continue
        found = list(found)
        assert len(found) == (2 if feature.endswith("_list") else 1)
        if item in accepted:
            assert found[0] == accepted[item]
        else:
            assert is_the_same(item, found[0], column.to_pylist()[0])


def is_the_same(feature, found, value):
    """Whether nothing was lost, but what a float has no room for."""
    if feature == "map":
        return found == json.loads(value)
    if feature == "float":
        return found == float(np.float32(value))
    if isinstance(found, uuid.UUID):
        return found.bytes == value
    if isinstance(found, dt.datetime):
        return found.timestamp() == value
    if isinstance(found, str):
        return found == str(value)
    return found == value or D(found) == D(value)


def check_message(error, feature, column):
    """An error says where, and of what type."""
    assert f"feature view 'v', feature '{feature}'" in str(error)
    assert str(column.type) in str(error)
    assert error.kind == "invalid_value"


@pytest.mark.parametrize(
    ("feature", "column", "message"),
    [
        ("float", pa.array([1.0, 1e300]), "row 1: 1e300 is too large"),
        ("float_list", pa.array([[1.0], [2.0, -1e300]]), "row 1: -1e300 is too large"),
        ("float", pa.array([1, 2**24 + 1]), "row 1: 16777217 is not exact"),
        ("double", pa.array([1, 2**53 + 1]), "row 1: 9007199254740993 is not exact"),
        ("double_list", pa.array([[2**53 + 1]]), "row 0: 9007199254740993 is not exact"),
        ("uuid", pa.array([str(UUID), "x"]), "row 1: 'x' is not a UUID"),
        ("uuid_list", pa.array([[str(UUID)], ["x"]]), "row 1: 'x' is not a UUID"),
        ("decimal", pa.array(["1", "1,5"]), "row 1: '1,5' is not a decimal number"),
        ("string", pa.array([b"a", b"\xff"]), "row 1: bytes that are not UTF-8"),
        ("time", pa.array([1, 1_700_000_000_000]), "row 1: the time 1700000000000 .*milliseconds"),
        ("time", pa.array([1, 10**15]).cast(pa.timestamp("s")), "row 1: the time 10{15}"),
        ("time_list", pa.array([[1], [10**12]]), "row 1: the time 1000000000000"),
        ("json", pa.array(["{}", "nope"]), "row 1: Invalid JSON"),
        ("bool", pa.array([1, 2]), "row 1: 2 is not a boolean"),
        ("int64_list", pa.array([[1], [None]]), "row 1: a list holds null"),
        ("int64_set", pa.array([[1], [1.5]]), "row 1: 1.5 is not a whole number"),
        ("double", pa.array(["1", "2"]), "such a feature takes numbers"),
    ],
)
def test_errors_name_the_row(view, feature, column, message):
    before = view.count()
    with pytest.raises(InvalidInputError, match=message) as caught:
        view.write_arrow(table(**{feature: column}))
    check_message(caught.value, feature, column)
    assert view.count() == before


def test_rows_are_counted_over_batches(view):
    values = [0.5] * 5000
    values[4321] = 1e300
    with pytest.raises(InvalidInputError, match=r"row 4321: .*\(the first 4000 rows are written"):
        view.write_arrow(table(float=pa.array(values)), batch_size=1000)


@pytest.mark.parametrize(
    ("column", "right"),
    [
        (pa.array([SECONDS]), DAY),
        (pa.array([SECONDS], pa.uint32()), DAY),
        (pa.array([SECONDS + 0.25]), DAY + dt.timedelta(seconds=0.25)),
        (pa.array([DAY.date()]), DAY),
        (pa.array([DAY.date()], pa.date64()), DAY),
        (pa.array(["2024-01-01T09:00:00+09:00"]), DAY),
        (pa.array(["2024-01-01"]).dictionary_encode(), DAY),
        (pa.array(["9999-12-31T00:00:00Z"]), dt.datetime(9999, 12, 31, tzinfo=UTC)),
        (pa.array(["2026-03-01 12:00:00.25"]), dt.datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC)),
        (
            pa.array(["2026-03-01T12:00:00.123456789+01:00"]),
            dt.datetime(2026, 3, 1, 11, 0, 0, 123_456, UTC),
        ),
        *[
            (pa.array([DAY], pa.timestamp(unit, zone)), DAY)
            for unit in ("s", "ms", "us", "ns")
            for zone in (None, "Asia/Tokyo")
        ],
    ],
)
def test_event_times(view, column, right):
    view.write_arrow(pa.table({"id": [-7], "event_timestamp": column, "int64": [1]}))
    assert view.read([-7], ["int64"], as_dict=True)["event_timestamp"] == [right]
    view.delete([-7])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1, SECONDS * 1000]), "row 1: the time .*is it in milliseconds"),
        (pa.array([1.0, SECONDS * 1e6]), "row 1: the time .*is it in microseconds"),
        (pa.array([1, 2**64 - 1], pa.uint64()), "row 1: the time 18446744073709551615"),
        (pa.array([1, 10**15]).cast(pa.timestamp("s")), "row 1: the time 10{15}"),
        (pa.array([1, -(10**17)]).cast(pa.timestamp("ms", "UTC")), "row 1: the time -10{17}"),
        (pa.array([1, 10**18]).cast(pa.timestamp("us")), "row 1: the time 10{18}"),
        (pa.array([1, 2**31 - 1], pa.int32()).cast(pa.date32()), "row 1: the time 18"),
        (pa.array([1, 10**17]).cast(pa.date64()), "row 1: the time 1"),
        (pa.array(["2024-01-01", "soon"]), "row 1: 'soon' is not a time"),
        (pa.array([b"2024", b"2024"]), "neither timestamps nor dates"),
        (pa.array([True, False]), "neither timestamps nor dates"),
        (pa.array([1, None]), "row 1 has no event timestamp"),
        (pa.nulls(2), "row 0 has no event timestamp"),
    ],
)
def test_event_times_that_are_none(view, column, message):
    rows = pa.table({"id": [-8, -9], "event_timestamp": column, "int64": [1, 2]})
    with pytest.raises(InvalidInputError, match=message) as caught:
        view.write_arrow(rows)
    assert "feature view 'v', column 'event_timestamp'" in str(caught.value)
    assert view.read([-8, -9], ["int64"], as_dict=True)["int64"] == [None, None]


def frames():
    """Data frames with an index of their own."""
    frame = pd.DataFrame({"id": [-1, -2, -3], "event_timestamp": DAY, "int64": [1, 2, 3]})
    named = frame.set_index(pd.Index([5, 6, 7], name="row"))
    many = frame.set_index(pd.MultiIndex.from_product([[1], [1, 2, 3]]))
    return {
        "filtered": frame[frame["int64"] > 1],
        "sorted": frame.sort_values("int64", ascending=False),
        "concatenated": pd.concat([frame, frame]),
        "a name": named[named["int64"] > 1],
        "two levels": many,
        "a key": frame.set_index("id"),
        "a time": frame.set_index("event_timestamp"),
        "through parquet": pa.table(frame[frame["int64"] > 1]).replace_schema_metadata(None),
    }


@pytest.mark.parametrize("name", frames())
def test_the_index_of_a_frame_is_no_feature(view, name):
    frame = frames()[name]
    assert view.write_arrow(frame) == {"written": len(frame), "ignored": 0}
    assert view.read([-3], ["int64"], as_dict=True)["int64"] == [3]
    view.delete([-1, -2, -3])
