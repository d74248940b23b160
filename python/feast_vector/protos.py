"""Between Feast's protos and Arrow: the only module that touches ``feast.protos``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import chain, repeat
from operator import attrgetter, itemgetter
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from feast import Field
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import RepeatedValue
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

from feast_vector import _stream
from feast_vector.errors import InvalidInputError

FeatureRow: TypeAlias = tuple[EntityKeyProto, dict[str, ValueProto], datetime, "datetime | None"]
"""A row as Feast writes it: key, features, event time, created time."""

ReadRow: TypeAlias = "tuple[datetime | None, dict[str, ValueProto] | None]"
"""A row as Feast reads it; two ``None`` where there is no such entity."""

Document: TypeAlias = "tuple[datetime | None, EntityKeyProto | None, dict[str, ValueProto] | None]"
"""A row as a search returns it."""

FoundRow: TypeAlias = "tuple[datetime | None, EntityKeyProto, dict[str, ValueProto]]"
"""A row that a search found: time, key, features, of which ``distance`` and ``text_rank`` are two
where the row has them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


_ROWS_FOR_NUMBERS = 512
"""Fewer rows than this are serialized sooner than numpy's arrays are made."""


class _Number(NamedTuple):
    """Values that can be told without serializing them."""

    member: Literal[
        "int32_val", "int64_val", "double_val", "float_val", "bool_val", "unix_timestamp_val"
    ]
    """Which of a proto's members they are."""

    array: type[np.generic]
    """How numpy holds them."""

    fields: list[pa.Field]
    """How the engine takes them."""


_NUMBERS = {
    ValueType.INT32: _Number("int32_val", np.int32, _stream.numbers(pa.int32())),
    ValueType.INT64: _Number("int64_val", np.int64, _stream.numbers(pa.int64())),
    ValueType.DOUBLE: _Number("double_val", np.float64, _stream.numbers(pa.float64())),
    ValueType.FLOAT: _Number("float_val", np.float32, _stream.numbers(pa.float32())),
    ValueType.BOOL: _Number("bool_val", np.bool_, _stream.numbers(pa.bool_())),
    ValueType.UNIX_TIMESTAMP: _Number(
        "unix_timestamp_val", np.int64, _stream.numbers(pa.timestamp("s"))
    ),
}


def write_stream(rows: Sequence[FeatureRow], declared: Iterable[Field]) -> _stream.BatchStream:
    """Rows as Feast writes them, on their way to the engine.

    Args:
        rows: The rows, at least one.
        declared: The features of the view. Values may be of other features and of other types.
    """
    first = rows[0][1]
    features = [*first, *sorted(set().union(*map(itemgetter(1), rows)).difference(first))]
    numbers: dict[str, _Number | None] = dict.fromkeys(features)
    if len(rows) >= _ROWS_FOR_NUMBERS:
        numbers |= {
            field.name: _NUMBERS.get(field.dtype.to_value_type())
            for field in declared
            if field.name in numbers
        }
    kinds = (pa.struct(num.fields) if num else _stream.MESSAGE for num in numbers.values())
    batch_schema = _stream.schema(tuple(numbers), tuple(kinds))
    samples = {0, len(rows) // 2, len(rows) - 1}
    step = _stream.rows_per_batch(max(_size(rows[at]) for at in samples))
    pieces = (rows[start : start + step] for start in range(0, len(rows), step))
    return _stream.BatchStream(
        batch_schema, [partial(_batches, piece, numbers, batch_schema) for piece in pieces]
    )


def _size(row: FeatureRow) -> int:
    """Roughly the bytes of a row's values, if they know."""
    return sum(value.ByteSize() for value in row[1].values() if isinstance(value, ValueProto))


def _batches(
    rows: Sequence[FeatureRow], features: Mapping[str, _Number | None], batch_schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The rows as one batch, or as several where Arrow cannot hold a column in one array."""
    try:
        keys = list(map(EntityKeyProto.SerializeToString, map(itemgetter(0), rows)))
        columns = [
            _messages(keys),
            _times([row[2] for row in rows], needed=True),
            _times([row[3] for row in rows]),
        ]
    except (AttributeError, TypeError, ValueError, pa.ArrowException) as cause:
        message = f"a row's entity key or timestamps cannot be written: {cause}"
        raise InvalidInputError(message, "invalid_key") from cause
    columns += _feature_columns([row[1] for row in rows], features)
    if any(isinstance(column, pa.ChunkedArray) for column in columns):
        half = len(rows) // 2
        yield from _batches(rows[:half], features, batch_schema)
        yield from _batches(rows[half:], features, batch_schema)
    else:
        yield pa.RecordBatch.from_arrays(columns, schema=batch_schema)


def _feature_columns(
    rows: list[dict[str, ValueProto]], features: Mapping[str, _Number | None]
) -> list[pa.Array]:
    """The values of each feature; none where a row leaves the feature out."""
    count = len(features)
    if count and set(map(len, rows)) == {count}:
        # Hardly any Python runs for a single value. Values of another class, such as a later
        # Feast's, take the long way, and so does what cannot be serialized.
        with contextlib.suppress(AttributeError, TypeError):
            cells = map(itemgetter(*features), rows)
            values = list(cells if count == 1 else chain.from_iterable(cells))
            return [
                _number_column(values[place::count], number)
                if number
                else _messages(map(ValueProto.SerializeToString, values[place::count]))
                for place, number in enumerate(features.values())
            ]
    return [_any_column(rows, name, number) for name, number in features.items()]


def _messages(serialized: Iterable[bytes | None]) -> pa.Array:
    """One array, or a chunked one of more than Arrow can hold in one."""
    return pa.array(list(serialized), _stream.MESSAGE)


def _number_column(values: list[ValueProto], number: _Number) -> pa.Array:
    """Values of which most are such numbers."""
    numbers = np.fromiter(map(attrgetter(number.member), values), number.array, len(values))
    # Zero may stand for another member, and not-a-number loses bits on its way through Python.
    is_known = (numbers != 0) & (numbers == numbers)  # noqa: PLR0124
    if not is_known.all():
        zeros = np.flatnonzero(numbers == 0)
        is_known[zeros] = list(
            map(ValueProto.HasField, map(values.__getitem__, zeros.tolist()), repeat(number.member))
        )
    if is_known.all():
        return _either(number, pa.array(numbers), pa.nulls(len(values), _stream.MESSAGE))
    others: list[bytes | None] = [None] * len(values)
    for at in np.flatnonzero(~is_known).tolist():
        others[at] = values[at].SerializeToString()
    return _either(number, pa.array(numbers, mask=~is_known), _messages(others))


def _either(number: _Number, numbers: pa.Array, messages: pa.Array) -> pa.Array:
    """Numbers, and messages where these are null; the messages alone if they are chunked."""
    if isinstance(messages, pa.ChunkedArray):
        return messages
    numbers = numbers.view(number.fields[0].type)
    return pa.StructArray.from_arrays([numbers, messages], fields=number.fields)


def _any_column(rows: list[dict[str, ValueProto]], name: str, number: _Number | None) -> pa.Array:
    found = (row.get(name) for row in rows)
    try:
        column = _messages(None if value is None else value.SerializeToString() for value in found)
    except (AttributeError, TypeError, ValueError) as cause:
        message = f"feature '{name}': a value cannot be serialized: {cause}"
        raise InvalidInputError(message, "invalid_value") from cause
    if number is None:
        return column
    return _either(number, pa.nulls(len(rows), number.fields[0].type), column)


def serialize_values(
    column: pa.Array, value_type: ValueType, *, as_feast_does: bool, first_row: int = 0
) -> pa.Array:
    """Serialize a column by Feast's own conversion of Python values.

    Args:
        column: The values.
        value_type: What they are in Feast.
        as_feast_does: Whether they go the way of Feast's compute engine, through pandas and numpy,
            with what is lost there.
        first_row: The number of the first row, for messages.

    Raises:
        ValueError: Values of which nothing would be left, unless Feast is to have its way.
    """
    if as_feast_does:
        through_pandas = pa.array(column.to_pandas(), from_pandas=True)
        values = through_pandas.to_numpy(zero_copy_only=False)
        converted = python_values_to_proto_values(values, value_type)
        return pa.array([value.SerializeToString() for value in converted], pa.binary())
    values = column.to_pylist()
    if pa.types.is_map(column.type):
        values = [None if pairs is None else dict(pairs) for pairs in values]
    try:
        return _serialized(values, value_type)
    except Exception:
        for row, value in enumerate(values, first_row):
            try:
                _serialized([value], value_type)
            except Exception as cause:  # noqa: PERF203  # where one failed already
                message = f"row {row}: {cause or type(cause).__name__}"
                raise ValueError(message) from cause
        raise


def _serialized(values: list[object], value_type: ValueType) -> pa.Array:
    converted = python_values_to_proto_values(values, value_type)
    serialized = pa.array([value.SerializeToString() for value in converted], pa.binary())
    # Feast makes nulls of lists where it wants single values.
    for message, value in zip(serialized, values, strict=True):
        if value is not None and not message.as_py():
            text = f"{value!r} is not a value of that type"
            raise ValueError(text)
    return serialized


def _times(times: list[datetime | None], *, needed: bool = False) -> pa.Array:
    """Times of rows, which are UTC where they are naive."""
    plain = set(map(type, times)) <= {datetime, type(None)}
    # Arrow is particular about what pandas' timestamps have beyond microseconds.
    array = pa.array(times if plain else [_micros(time) for time in times], _stream.TIMESTAMP)
    if needed and array.null_count:
        text = "a row has no event timestamp"
        raise ValueError(text)
    return array


def _micros(time: datetime | None) -> int | None:
    """Microseconds since 1970."""
    # pandas has a time that is none, NaT, which is not equal to itself.
    if time is None or time != time:  # noqa: PLR0124
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=timezone.utc)
    return (time - _EPOCH) // timedelta(microseconds=1)


def _datetimes(column: pa.Array) -> list[datetime | None]:
    return [
        None if micros is None else _EPOCH + timedelta(microseconds=micros)
        for micros in column.view(pa.int64()).to_pylist()
    ]


def serialize_keys(keys: Sequence[EntityKeyProto]) -> list[bytes]:
    """Entity keys as the engine takes them."""
    return [key.SerializeToString() for key in keys]


def empty_response() -> GetOnlineFeaturesResponse:
    """A response to ``get_online_features`` before anything is in it."""
    return GetOnlineFeaturesResponse()


def expire(
    response: GetOnlineFeaturesResponse,
    start: int,
    limits: Sequence[tuple[int | None, int]],
    present: list[int],
) -> None:
    """Take values past their view's ttl out of a response, with Feast's status for them.

    Args:
        response: The response.
        start: The place of the first feature's vector.
        limits: For each view the time, in microseconds, before which rows are past its ttl, and
            how many features are read of it.
        present: How many values of each view are there; what is taken out no longer counts.
    """
    vectors = iter(response.results[start:])
    for place, (limit, features) in enumerate(limits):
        for vector in [next(vectors) for _ in range(features)]:
            if limit is None:
                continue
            for row, moment in enumerate(vector.event_timestamps):
                there = vector.statuses[row] == FieldStatus.PRESENT
                if there and moment.seconds * 10**6 + moment.nanos // 1000 < limit:
                    vector.statuses[row] = FieldStatus.OUTSIDE_MAX_AGE
                    vector.values[row].Clear()
                    present[place] -= 1


def serialize_column(values: Iterable[ValueProto]) -> bytes:
    """Values as one message."""
    serialized: bytes = RepeatedValue(val=values).SerializeToString()
    return serialized


def read_rows(batch: pa.RecordBatch, not_before: int | None = None) -> list[ReadRow]:
    """The rows of ``Engine.read``, as Feast wants them; those before that time are not there."""
    times = _datetimes(batch.column(0))
    features = _feature_dicts(batch, leading=1)
    limit = None if not_before is None else _EPOCH + timedelta(microseconds=not_before)
    return [
        (None, None) if time is None or (limit and time < limit) else (time, row)
        for time, row in zip(times, features, strict=True)
    ]


def found_rows(batch: pa.RecordBatch, join_keys: Sequence[str]) -> list[FoundRow]:
    """The rows of ``Engine.search``, best first, with the named join keys among the features."""
    keys = [EntityKeyProto.FromString(key) for key in batch.column(0).to_pylist()]
    times = _datetimes(batch.column(1))
    rows = _feature_dicts(batch, leading=4)
    for name in join_keys:
        for key, row in zip(keys, rows, strict=True):
            row.update(
                (name, value)
                for joined, value in zip(key.join_keys, key.entity_values, strict=True)
                if joined == name
            )
    for at, name in ((2, "distance"), (3, "text_rank")):
        for row, number in zip(rows, batch.column(at).to_pylist(), strict=True):
            if number is not None:
                row[name] = ValueProto(float_val=number)
    return list(zip(times, keys, rows, strict=True))


def _feature_dicts(batch: pa.RecordBatch, leading: int) -> list[dict[str, ValueProto]]:
    parse = ValueProto.FromString
    rows: list[dict[str, ValueProto]] = [{} for _ in range(batch.num_rows)]
    for name, column in zip(batch.schema.names[leading:], batch.columns[leading:], strict=True):
        for row, value in zip(rows, column.to_pylist(), strict=True):
            if value is not None:
                row[name] = parse(value)
    return rows


def null_value() -> ValueProto:
    """The value of a feature that is not there."""
    return ValueProto()


def entity_keys(
    columns: Mapping[str, Sequence[object]], types: Mapping[str, ValueType], count: int
) -> list[bytes]:
    """Serialized entity keys of ``count`` rows, from a column for each join key."""
    if not columns:
        dummy = EntityKeyProto(
            join_keys=[DUMMY_ENTITY_ID], entity_values=[ValueProto(string_val=DUMMY_ENTITY_VAL)]
        )
        return [dummy.SerializeToString()] * count
    names = sorted(columns)
    values = []
    for name in names:
        try:
            column = list(columns[name])
            if types[name].name in {"INT32", "INT64"}:
                column = [
                    value if type(value) is int or value is None else _whole(value)
                    for value in column
                ]
            values.append(python_values_to_proto_values(column, types[name]))
        except (AttributeError, TypeError, ValueError) as cause:  # noqa: PERF203  # a few names
            message = f"join key '{name}' ({types[name].name}): {cause}"
            raise InvalidInputError(message, "invalid_key") from cause
    return [
        EntityKeyProto(join_keys=names, entity_values=row).SerializeToString()
        for row in zip(*values, strict=True)
    ]


def _whole(value: object) -> object:
    """A number as the integer that it is, which Feast would cut it to in silence."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        message = f"{value!r} is not a whole number"
        raise ValueError(message)
    return int(value) if isinstance(value, float) else value
