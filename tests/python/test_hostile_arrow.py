"""Arrow data that lies: nothing is read from outside of it, and nothing of it is written."""

import struct

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import SHOP_ROWS, SHOP_TIME
from feast_vector import _arrow, _core, errors

DAMAGED = "the Arrow data is damaged"


def table(rows=2):
    return pa.table(
        {
            "id": pa.array(range(900, 900 + rows)),
            "title": ["hello", "world"][:rows],
            "event_timestamp": pa.array([SHOP_TIME] * rows, pa.timestamp("us", "UTC")),
        }
    )


def sent(batch, honest, lie):
    """What a client sends of the batch, some of its offsets replaced by others: a stream's bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    raw = bytearray(sink.getvalue().to_pybytes())
    at = raw.find(struct.pack(f"<{len(honest)}i", *honest))
    assert at > 0
    struct.pack_into(f"<{len(lie)}i", raw, at, *lie)
    return bytes(raw)


def lying(end):
    """Two texts of five bytes, of which the last is said to end elsewhere."""
    return sent(table().to_batches()[0], [0, 5, 10], [0, 5, end])


LIES = {"leak": 3000, "crash": 1 << 30, "back": 2, "negative": -5}


@pytest.mark.parametrize("end", LIES.values(), ids=LIES)
@pytest.mark.parametrize(
    "given",
    [
        lambda raw: pa.ipc.open_stream(raw).read_all(),
        lambda raw: pa.ipc.open_stream(raw).read_next_batch(),
        pa.ipc.open_stream,
        lambda raw: pa.ipc.open_stream(raw).read_all().to_batches()[0].slice(1),
    ],
    ids=["table", "batch", "reader", "slice"],
)
def test_offsets_that_lie_are_refused(items, given, end):
    with pytest.raises(errors.InvalidInputError, match=f"feature view 'items'.*{DAMAGED}"):
        items.write_arrow(given(lying(end)))
    assert items.count() == SHOP_ROWS


def patched(array, honest, lie):
    """An array whose offsets lie, as pyarrow takes it from a stream."""
    raw = sent(pa.record_batch([array], names=["a"]), honest, lie)
    return pa.ipc.open_stream(raw).read_next_batch().column("a")


def binary(offsets, values=b"\n\x02id\x12\x02\x20\x01xxxxxxxx"):
    """Byte strings whose offsets may lie."""
    half = len(values) // 2
    return patched(pa.array([values[:half], values[half:]]), [0, half, 2 * half], offsets)


TIME = pa.timestamp("us")
SCHEMA = pa.schema(
    [
        ("entity_key", pa.binary()),
        ("event_timestamp", TIME),
        ("created_timestamp", TIME),
        ("name", pa.binary()),
    ]
)


def core(tmp_path):
    engine = _core.Engine(tmp_path / "core.db", builds_indexes=False)
    view = _core.View("p", "v", 0, [("id", "INT64")], [("name", "STRING", None)], [], [])
    engine.apply("p", [view], [])
    return engine, view


def batch(keys, names=None):
    rows = len(keys)
    names = pa.array([b""] * rows, pa.binary()) if names is None else names
    times = pa.array([1] * rows, TIME)
    return pa.RecordBatch.from_arrays([keys, times, pa.nulls(rows, TIME), names], schema=SCHEMA)


def good(first, rows=300):
    keys = [
        b"\n\x02id\x12" + bytes([3, 0x20, 0x80 | (i & 127), i >> 7])
        for i in range(first, first + rows)
    ]
    return batch(pa.array(keys, pa.binary()))


def from_a_client(width, lie):
    """Two rows, of which the offsets of the keys (of 8 bytes) or the values (of 4) lie."""
    keys = pa.array([b"\n\x02id\x12\x02\x20" + bytes([i]) for i in (1, 2)], pa.binary())
    values = pa.array([b"\x12\x02ab", b"\x12\x02cd"], pa.binary())
    raw = sent(batch(keys, values), [0, width, 2 * width], lie)
    return pa.ipc.open_stream(raw).read_next_batch()


@pytest.mark.parametrize(
    "bad",
    [
        pa.record_batch([pa.array([1, 2])], names=["a"]),
        from_a_client(8, [0, 8, 5]),
        from_a_client(8, [0, 8, 1 << 30]),
        from_a_client(4, [0, 4, -4]),
        good(0).drop_columns(["name"]),
        good(0).rename_columns(["entity_key", "event_timestamp", "created_timestamp", "other"]),
        good(0).set_column(3, "name", pa.array(["x"] * 300)),
    ],
    ids=["other", "back", "outside", "value", "fewer", "renamed", "type"],
)
@pytest.mark.parametrize("before", [0, 1, 6])
def test_a_batch_that_contradicts_its_stream_or_itself_fails_the_whole_write(tmp_path, bad, before):
    engine, view = core(tmp_path)
    stream = [good(i * 300) for i in range(before)] + [bad, good(9000)]
    with pytest.raises(errors.InvalidInputError):
        engine.write(view, pa.RecordBatchReader.from_batches(SCHEMA, iter(stream)))
    assert engine.count(view) == 0
    assert engine.write(view, pa.RecordBatchReader.from_batches(SCHEMA, [good(0)])) == (300, 0)


def test_an_error_of_the_stream_is_the_callers_own(tmp_path):
    def batches():
        yield good(0)
        raise LookupError("the source is gone")

    engine, view = core(tmp_path)
    with pytest.raises(LookupError, match="the source is gone"):
        engine.write(view, pa.RecordBatchReader.from_batches(SCHEMA, batches()))
    assert engine.count(view) == 0


@pytest.mark.parametrize(
    "array",
    [
        binary([0, 8, 5]).view(pa.string()),
        binary([0, 8, 1 << 30]).view(pa.string()),
        binary([0, 1, 2], b"\xff\xfe").view(pa.string()),
        patched(pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float32())), [0, 2, 3], [0, 2, 9000]),
        pa.DictionaryArray.from_arrays(pa.array([0, 7]), ["a"], safe=False),
    ],
    ids=["back", "outside", "utf8", "list", "dictionary"],
)
def test_arrays_are_validated_before_they_are_serialized(array):
    for kind in ("STRING", "FLOAT_LIST", "INT64"):
        with pytest.raises(errors.InvalidInputError, match=DAMAGED):
            _core.serialize_values(kind, array)


@pytest.mark.parametrize("kind", ["STRING_LIST", "INT64_LIST", "FLOAT_SET"])
def test_lists_of_no_elements_stay_as_many_as_they_are(kind):
    item = pa.string() if kind == "STRING_LIST" else pa.int64()
    lists = pa.array([[], None, [], []], pa.list_(item, 0))
    for array in (lists, lists.slice(1), lists.slice(4), lists.cast(pa.list_(item))):
        for as_feast_does in (False, True):
            messages = _core.serialize_values(kind, array, as_feast_does=as_feast_does)
            if messages is not None:
                nulls = [message == b"" for message in messages.to_pylist()]
                assert nulls == [value is None for value in array.to_pylist()]


INNER = pa.struct([("a", pa.struct([("b", pa.int64())]))])


@pytest.mark.parametrize(
    "kind",
    [
        INNER,
        pa.list_(INNER),
        pa.list_(pa.struct([("b", pa.int64())]), 1),
        pa.map_(pa.string(), INNER),
        pa.struct([("c", INNER)]),
    ],
    ids=str,
)
def test_parts_of_structs_within_structs_are_taken(kind):
    def value(of, number):
        if pa.types.is_struct(of):
            return {field.name: value(field.type, number) for field in of}
        if pa.types.is_map(of):
            return [("key", value(of.item_type, number))]
        return [value(of.value_type, number)] if pa.types.is_nested(of) else number

    whole = pa.array([value(kind, number) for number in range(5)], kind)
    for start in range(6):
        for length in range(6 - start):
            part = whole.slice(start, length)
            taken = _arrow.array(part)
            assert taken.to_pylist() == part.to_pylist()
            # Feast's conversion has to judge; that it is asked is an answer.
            assert _core.serialize_values("JSON", part) is None


def test_join_keys_have_to_be_columns_of_as_many_values():
    one, two = (_core.serialize_values("INT64", pa.array(values)) for values in ([1], [1, 2]))
    for names, columns, match in [
        (["a", "b"], [two, one], "differ in length: 'a' has 2 rows, and 'b' 1"),
        (["a", "b"], [one, two], "differ in length: 'a' has 1 rows, and 'b' 2"),
        (["a", "b"], [one], "2 join keys, and columns of 1"),
        (["a"], [pa.array([1])], "join key 'a' is of Arrow's type Int64"),
        (["a"], [pa.array([b"", None])], "row 1 has no value of join key 'a'"),
    ]:
        with pytest.raises(errors.InvalidInputError, match=match) as caught:
            _core.serialize_entity_keys(names, columns)
        assert caught.value.kind == "invalid_key"
    with pytest.raises(errors.InvalidInputError, match=DAMAGED):
        _core.serialize_entity_keys(["a"], [binary([0, 8, 5])])
    with pytest.raises(TypeError, match="list is no Arrow array"):
        _core.serialize_entity_keys(["a"], [[b""]])


def test_keys_and_queries_are_validated(items):
    keys = pa.DictionaryArray.from_arrays(pa.array([0, 1 << 30]), pa.array([1]), safe=False)
    for given in (keys, {"id": keys}, pa.table({"id": keys})):
        with pytest.raises(
            errors.InvalidInputError, match=f"feature view 'items', keys: {DAMAGED}"
        ):
            items.read(given)
    query = pa.DictionaryArray.from_arrays(pa.array([0, 1 << 30]), pa.array([1.0]), safe=False)
    with pytest.raises(errors.InvalidInputError, match=f"'embedding': {DAMAGED}"):
        items.search(query)


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize(
    "given",
    [
        lambda data: data,
        lambda data: data.to_reader(),
        lambda data: data.combine_chunks().to_batches()[0] if data.num_rows else data,
        lambda data: data.to_pandas(),
        lambda data: data.to_pandas(types_mapper=pd.ArrowDtype),
        pl.from_arrow,
        lambda data: pl.from_arrow(data).lazy().collect(),
    ],
    ids=["table", "reader", "batch", "pandas", "pandas-arrow", "polars", "lazy"],
)
def test_data_that_does_not_lie_is_written(items, given, rows):
    data = table().slice(0, rows)
    assert items.write_arrow(given(data)) == {"written": rows, "ignored": 0}
    assert items.count() == SHOP_ROWS + rows
