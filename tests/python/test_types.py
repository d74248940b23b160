"""Every kind of Feast value comes back the same proto, whatever column it lands in."""

import itertools
import math
import struct
import subprocess
import sys
import uuid
from functools import partial

import pytest
from conftest import at, integer, key, make_view
from feast.protos.feast.types import Value_pb2
from feast.protos.feast.types.Value_pb2 import Map, MapKey, RepeatedValue, ScalarMap, Value
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    Float32,
    Float64,
    ImageBytes,
    Int32,
    Int64,
    Json,
    PdfBytes,
    Set,
    String,
    Struct,
    TimeUuid,
    UnixTimestamp,
    Uuid,
    ZonedTimestamp,
)
from feast.types import (
    Map as MapType,
)
from feast.types import (
    ScalarMap as ScalarMapType,
)
from feast_vector import FormatError, InvalidInputError, protos
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT = st.floats(width=32)
DOUBLE = st.floats()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Of the years that Python has, and Feast's null.
SECONDS = st.integers(-62_135_596_800, 253_402_300_799) | st.just(-(2**63))
UUIDS = st.uuids().map(str)
DECIMALS = st.decimals().map(str)

SCALARS = {
    "bytes_val": st.binary(max_size=20),
    "string_val": TEXT,
    "int32_val": INT32,
    "int64_val": INT64,
    "double_val": DOUBLE,
    "float_val": FLOAT,
    "bool_val": st.booleans(),
    "unix_timestamp_val": SECONDS,
    "json_val": TEXT,
    "uuid_val": UUIDS,
    "time_uuid_val": UUIDS,
    "decimal_val": DECIMALS,
}
ELEMENTS = {name.removesuffix("_val"): strategy for name, strategy in SCALARS.items()}


def sequences():
    """The name and element strategy of every list and set member of the oneof."""
    for field in Value.DESCRIPTOR.fields:
        base, _, kind = field.name.removesuffix("_val").rpartition("_")
        if kind in ("list", "set") and base in ELEMENTS:
            yield field.name, field.message_type.name, ELEMENTS[base]


SEQUENCES = {
    name: st.lists(element, max_size=5).map(
        lambda items, message=message: getattr(Value_pb2, message)(val=items)
    )
    for name, message, element in sequences()
}


def member(name, strategy):
    return strategy.map(lambda content: Value(**{name: content}))


FLAT = st.one_of(
    st.just(Value()),
    st.just(Value(null_val=0)),
    *(member(name, strategy) for name, strategy in (SCALARS | SEQUENCES).items()),
)
MAPS = st.dictionaries(TEXT, FLAT, max_size=3).map(lambda entries: Map(val=entries))
MAP_KEYS = st.one_of(
    INT32.map(lambda k: MapKey(int32_key=k)),
    DOUBLE.map(lambda k: MapKey(double_key=k)),
    st.binary(max_size=5).map(lambda k: MapKey(bytes_key=k)),
    UUIDS.map(lambda k: MapKey(uuid_key=k)),
)
NESTED = {
    "map_val": MAPS,
    "struct_val": MAPS,
    "map_list_val": st.lists(MAPS, max_size=2).map(lambda maps: Value_pb2.MapList(val=maps)),
    "struct_list_val": st.lists(MAPS, max_size=2).map(lambda maps: Value_pb2.MapList(val=maps)),
    "list_val": st.lists(FLAT, max_size=3).map(lambda values: RepeatedValue(val=values)),
    "set_val": st.lists(FLAT, max_size=3).map(lambda values: RepeatedValue(val=values)),
    "scalar_map_val": st.lists(st.tuples(MAP_KEYS, FLAT), max_size=3).map(
        lambda pairs: ScalarMap(val=[Value_pb2.ScalarMapEntry(key=k, value=v) for k, v in pairs])
    ),
    "zoned_timestamp_val": st.builds(
        Value_pb2.ZonedTimestamp,
        unix_timestamp=st.integers(-62_135_500_000, 253_402_200_000),
        zone=st.sampled_from(["UTC", "Europe/Berlin", ""]),
    ),
}
VALUES = st.one_of(FLAT, *(member(name, strategy) for name, strategy in NESTED.items()))

DECLARED = {
    "f_bytes": Bytes,
    "f_pdf": PdfBytes,
    "f_image": ImageBytes,
    "f_string": String,
    "f_int32": Int32,
    "f_int64": Int64,
    "f_double": Float64,
    "f_float": Float32,
    "f_bool": Bool,
    "f_time": UnixTimestamp,
    "f_json": Json,
    "f_uuid": Uuid,
    "f_time_uuid": TimeUuid,
    "f_decimal": Decimal,
    "f_map": MapType,
    "f_scalar_map": ScalarMapType,
    "f_zoned": ZonedTimestamp,
    "f_struct": Struct({"a": Int64}),
    "f_list": Array(Array(Int64)),
    "f_set": Set(Array(Int64)),
    **{
        f"f_{base}_list".lower(): Array(base)
        for base in (
            Bytes,
            String,
            Int32,
            Int64,
            Float64,
            Float32,
            Bool,
            UnixTimestamp,
            Json,
            Uuid,
            TimeUuid,
            Decimal,
            MapType,
        )
    },
    **{
        f"f_{base}_set".lower(): Set(base)
        for base in (
            Bytes,
            String,
            Int32,
            Int64,
            Float64,
            Float32,
            Bool,
            UnixTimestamp,
            Uuid,
            TimeUuid,
            Decimal,
        )
    },
}


def test_the_strategies_cover_the_whole_oneof():
    covered = {"null_val", *SCALARS, *SEQUENCES, *NESTED}
    assert covered == {field.name for field in Value.DESCRIPTOR.fields}
    assert len(covered) == 44


def same(a, b):
    """Equal protos, to the bit: NaN equals itself, -0.0 is not 0.0."""
    return a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)


def is_readable(feature, value):
    """Whether Feast reads such a value of the feature; it takes strings of these for UUIDs."""
    return "uuid" not in feature or not (value.WhichOneof("val") or "").startswith("string")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_value_in_any_column(harness, data):
    view = make_view("types", DECLARED)
    names = data.draw(st.lists(st.sampled_from(sorted(DECLARED)), max_size=8, unique=True))
    row = {name: data.draw(VALUES.filter(partial(is_readable, name))) for name in names}
    harness.config.online_store.write_conflict = "last_write_wins"
    number = data.draw(st.integers(0, 2**40))
    harness.write(view, (key(id=number), row, at(0)))
    ((_, back),) = harness.read(view, key(id=number), features=names)
    assert {name: value.WhichOneof("val") for name, value in back.items()} == {
        name: value.WhichOneof("val") for name, value in row.items()
    }
    for name, value in row.items():
        assert same(back[name], value), name


NEW_IDS = itertools.count()


def of_any_bits(tag, width):
    """Floating-point values of any bits at all, such as not-a-number with a payload."""
    raw = st.binary(min_size=width, max_size=width)
    signalling = st.just(
        struct.pack("<I", 0x7F800001) if width == 4 else b"\1" + b"\0" * 5 + b"\xf0\x7f"
    )
    return (raw | signalling).map(lambda raw: Value.FromString(bytes([tag]) + raw))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_many_rows_of_numbers_and_of_what_else_is_there(harness, data):
    """Of so many rows, numbers go to the core as numbers, and all else beside them."""
    numbers = {
        "f_int32": member("int32_val", st.just(0) | INT32),
        "f_int64": member("int64_val", st.just(0) | INT64),
        "f_double": member("double_val", st.sampled_from([0.0, -0.0]) | DOUBLE)
        | of_any_bits(0x29, 8),
        "f_float": member("float_val", st.sampled_from([0.0, -0.0]) | FLOAT) | of_any_bits(0x35, 4),
        "f_bool": member("bool_val", st.booleans()),
        "f_time": member("unix_timestamp_val", SECONDS),
    }
    view = make_view("types", DECLARED)
    harness.config.online_store.write_conflict = "last_write_wins"
    names = data.draw(st.lists(st.sampled_from(sorted(numbers)), min_size=1, unique=True))
    has_others = data.draw(st.booleans())
    drawn = [
        {
            name: data.draw(numbers[name] | FLAT if has_others else numbers[name])
            for name in names
            if not has_others or data.draw(st.integers(0, 9))
        }
        for _ in range(data.draw(st.integers(1, 6)))
    ]
    rows = [drawn[i % len(drawn)] for i in range(protos._ROWS_FOR_NUMBERS + 2)]
    keys = [key(id=next(NEW_IDS)) for _ in rows]
    harness.write(view, *((key, row, at(0)) for key, row in zip(keys, rows, strict=True)))
    found = harness.read(view, *keys, features=names)
    for row, (_, back) in zip(rows, found, strict=True):
        assert back.keys() == row.keys()
        assert all(same(back[name], value) for name, value in row.items())


NUMBERS = [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308, 0.1]


@pytest.mark.parametrize("number", NUMBERS)
def test_floats_come_back_bit_for_bit(harness, number):
    view = make_view(fields={"d": Float64, "f": Float32, "l": Array(Float32), "s": Set(Float64)})
    single = struct.unpack(
        "f", struct.pack("f", min(max(number, -3e38), 3e38) if math.isfinite(number) else number)
    )[0]
    row = {
        "d": Value(double_val=number),
        "f": Value(float_val=single),
        "l": Value(float_list_val=Value_pb2.FloatList(val=[single, 1.0])),
        "s": Value(double_set_val=Value_pb2.DoubleSet(val=[number])),
    }
    harness.write(view, (key(id=1), row, at(0)))
    back = harness.read(view, key(id=1))[0][1]
    assert all(same(back[name], value) for name, value in row.items())


def test_extremes(harness):
    view = make_view(
        fields={"i": Int64, "t": String, "b": Bytes, "e": Array(Float32), "l": Array(String)}
    )
    row = {
        "i": integer(-(2**63)),
        "t": Value(string_val="a\0b\u2028é🙂"),
        "b": Value(bytes_val=bytes(range(256)) * 5_000),
        "e": Value(float_list_val=Value_pb2.FloatList(val=[0.25] * 3072)),
        "l": Value(string_list_val=Value_pb2.StringList(val=[])),
    }
    harness.write(view, (key(id=2**63 - 1), row, at(0)))
    assert harness.read(view, key(id=2**63 - 1)) == [(at(0), row)]


def test_a_kind_that_a_later_feast_adds_is_kept(harness):
    class FutureValue:
        """A member 127 of the oneof, as it would serialize."""

        def SerializeToString(self):
            return b"\xfa\x07\x03new"

    view = make_view()
    harness.write(view, (key(id=1), {"name": FutureValue(), "other": FutureValue()}, at(0)))
    back = harness.read(view, key(id=1))[0][1]
    assert back["name"].SerializeToString() == b"\xfa\x07\x03new"
    assert back["other"].SerializeToString() == b"\xfa\x07\x03new"
    count = protos._ROWS_FOR_NUMBERS
    among_many = [(key(id=i), {"number": integer(i)}, at(1)) for i in range(count)]
    among_many[50][1]["number"] = FutureValue()
    harness.write(view, *among_many)
    (_, before), (_, there) = harness.read(view, key(id=49), key(id=50), features=["number"])
    assert before == {"number": integer(49)}
    assert there["number"].SerializeToString() == b"\xfa\x07\x03new"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Int64, String),
        (String, Array(Float32)),
        (Array(Float32), Array(Float64)),
        (Float64, Int32),
        (Json, MapType),
    ],
)
def test_a_retyped_feature_keeps_its_values(harness, old, new):
    view = make_view(fields={"f": old, "other": Int64})
    values = [
        integer(5),
        Value(string_val="text"),
        Value(double_val=-0.0),
        Value(float_list_val=Value_pb2.FloatList(val=[1, math.nan])),
        Value(),
        Value(null_val=0),
    ]
    harness.write(
        view, *((key(id=i), {"f": v, "other": integer(i)}, at(0)) for i, v in enumerate(values))
    )
    edited = make_view(fields={"f": new, "other": Int64})
    with pytest.warns(UserWarning, match="feature 'f': it was .* by now; . rows keep"):
        harness.update([edited])
    rows = harness.read(edited, *(key(id=i) for i in range(len(values))))
    for i, (value, (_, row)) in enumerate(zip(values, rows, strict=True)):
        assert same(row["f"], value)
        assert row["other"] == integer(i)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Value(unix_timestamp_val=1_700_000_000_000), "1700000000000 .*is it in milliseconds"),
        (Value(unix_timestamp_val=-(10**12)), "outside of the years 1 to 9999"),
        (
            Value(unix_timestamp_list_val=Value_pb2.Int64List(val=[1, 2**62])),
            "4611686018427387904",
        ),
        (Value(unix_timestamp_set_val=Value_pb2.Int64Set(val=[2**62])), "4611686018427387904"),
        (Value(uuid_val="x"), "'x' is not a UUID"),
        (Value(string_val="x"), "'x' is not a UUID"),
        (Value(time_uuid_val=""), "'' is not a UUID"),
        (Value(uuid_list_val=Value_pb2.StringList(val=["x"])), "'x' is not a UUID"),
        (Value(decimal_val="1,5"), "'1,5' is not a decimal number"),
        (Value(decimal_set_val=Value_pb2.StringSet(val=["x"])), "'x' is not a decimal number"),
        (Value(map_val=Map(val={"a": Value(uuid_val="x")})), "'x' is not a UUID"),
        (Value(list_val=RepeatedValue(val=[Value(decimal_val="")])), "'' is not a decimal"),
        (
            Value(zoned_timestamp_val=Value_pb2.ZonedTimestamp(unix_timestamp=2**60, zone="UTC")),
            "outside of the years",
        ),
    ],
)
@pytest.mark.parametrize("count", [1, protos._ROWS_FOR_NUMBERS + 1])
def test_what_feast_could_not_read_is_refused(harness, value, message, count):
    """One such value would make every answer that has it fail."""
    view = make_view(fields={"u": Uuid, "t": UnixTimestamp})
    feature = "t" if value.WhichOneof("val").startswith("unix") else "u"
    good = Value()
    rows = [(key(id=i), {"u": good, "t": good}, at(0)) for i in range(count)]
    rows[-1][1][feature] = value
    with pytest.raises(InvalidInputError, match=message) as caught:
        harness.write(view, *rows)
    assert f"row {count - 1} (id={count - 1}): feature '{feature}'" in str(caught.value)
    assert harness.read(view, key(id=0)) == [(None, None)]


def test_bad_cells_of_a_file_are_errors_that_say_where(harness, tmp_path):
    """Earlier versions and other programs wrote such values."""
    view = make_view(fields={"u": Uuid, "t": UnixTimestamp})
    row = {"u": Value(uuid_val=str(uuid.UUID(int=1))), "t": Value(unix_timestamp_val=5)}
    harness.write(view, (key(id=1), row, at(0)), (key(id=2), row, at(0)))
    config = harness.config
    changes = [
        ("t", 1_700_000_000_000, "feature 't': the time 1700000000000"),
        ("u", "x", "feature 'u': 'x' is not a UUID"),
        ("event_timestamp", 10**18, "its event timestamp 1000000000000000000"),
    ]
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1])\n"
        "c.execute(f'UPDATE shop_items SET {sys.argv[2]} = ? WHERE id = 1',"
        " [int(sys.argv[3]) if sys.argv[3].isdigit() else sys.argv[3]]); c.commit()"
    )
    for column, bad, message in changes:
        path = config.online_store.path
        subprocess.run([sys.executable, "-c", program, path, column, str(bad)], check=True)
        with pytest.raises(FormatError, match=rf"the row of id=1: .*{message}"):
            harness.read(view, key(id=2), key(id=1))
        assert harness.read(view, key(id=2))[0][1] == row
        # What no reader can hold is never newer than what is written.
        harness.write(view, (key(id=1), row, at(0)))
        assert harness.read(view, key(id=1))[0][1] == row
