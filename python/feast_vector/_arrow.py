"""Arrow data of others: validated in full before anything is read from it.

What a file or a client sends, pyarrow takes as it is: offsets that lead outside of their buffers
included. Arrow's C interface does not even say how long a buffer is, so whoever takes an array
through it has to believe its offsets. What pyarrow holds is therefore validated where it is, with
the sizes of its buffers known. Of other libraries' data in this process, values and their order are
validated; that its memory is as large as it says has to be believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from feast_vector._stream import BatchStream
from feast_vector.errors import InvalidInputError

_ARROW = (pa.Array, pa.ChunkedArray, pa.RecordBatch, pa.Table)


def validate(data: Any, what: str = "") -> Any:  # noqa: ANN401
    """The data, if it is no Arrow data, or valid.

    Raises:
        InvalidInputError: Arrow data that contradicts itself.
    """
    if isinstance(data, _ARROW):
        try:
            _validate(data)
        except (pa.ArrowException, ValueError) as cause:
            place = f"{what}: " if what else ""
            message = (
                f"{place}the Arrow data is damaged, or was made by hand ({cause}); nothing of it "
                "is used. Make it anew with a library that writes Arrow"
            )
            raise InvalidInputError(message, "invalid_value") from cause
    return data


def _validate(data: Any) -> None:  # noqa: ANN401
    types = data.schema.types if isinstance(data, pa.RecordBatch | pa.Table) else [data.type]
    if not any(pa.types.is_date64(kind) for kind in types):
        data.validate(full=True)
        return
    # Arrow wants whole days of these; what we make of others is said elsewhere.
    data.validate()
    if isinstance(data, pa.RecordBatch | pa.Table):
        for column in data.columns:
            _validate(column)


def array(data: Any) -> pa.Array:  # noqa: ANN401
    """An array of any library's, validated."""
    if not isinstance(data, pa.Array):
        if not hasattr(data, "__arrow_c_array__"):
            message = f"{type(data).__name__} is no Arrow array"
            raise TypeError(message)
        data = pa.array(data)
    return _whole(validate(data))


def reader(data: Any) -> pa.RecordBatchReader:  # noqa: ANN401
    """The batches of any library's table or stream, not validated yet.

    pyarrow's own do not pass through the C interface, which loses the sizes of their buffers.
    """
    if isinstance(data, pa.RecordBatchReader):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.RecordBatchReader.from_batches(data.schema, [data])
    if _is_of(data, "pandas"):
        # As pandas itself does; its columns may be pyarrow's.
        data = pa.Table.from_pandas(data)
    # pyarrow's tables and scanners.
    own = getattr(data, "to_reader", None) if _is_of(data, "pyarrow") else None
    found = own() if callable(own) else None
    if isinstance(found, pa.RecordBatchReader):
        return found
    if hasattr(data, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(data)
    if hasattr(data, "__arrow_c_array__"):
        return reader(pa.record_batch(data))
    message = f"{type(data).__name__} is no Arrow data"
    raise TypeError(message)


def batches(source: pa.RecordBatchReader, what: str = "") -> Iterator[pa.RecordBatch]:
    """The reader's batches, each of the schema that it promised, and validated.

    Raises:
        InvalidInputError: A batch that contradicts its stream's schema, or itself.
    """
    schema = source.schema
    for number, batch in enumerate(source):
        if not batch.schema.equals(schema):
            place = f"{what}: " if what else ""
            message = (
                f"{place}batch {number} of the stream has the columns {_columns(batch.schema)}, "
                f"and its schema promises {_columns(schema)}"
            )
            raise InvalidInputError(message, "invalid_argument")
        yield _whole_columns(validate(batch, what))


def checked(data: Any) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:  # noqa: ANN401
    """What the core takes of a table or stream: its schema, and its validated batches."""
    if isinstance(data, BatchStream):
        return data.schema, data.batches()
    source = reader(data)
    return source.schema, batches(source)


def _whole_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    if not any(_is_cut_wrongly(kind) for kind in batch.schema.types):
        return batch
    return pa.RecordBatch.from_arrays([_whole(c) for c in batch.columns], schema=batch.schema)


def _whole(data: pa.Array) -> pa.Array:
    """The array; a copy of what it is a part of where the core's Arrow would take another part."""
    return pa.concat_arrays([data]) if _is_cut_wrongly(data.type) else data


def _is_cut_wrongly(kind: pa.DataType, *, is_inner: bool = False) -> bool:
    """Whether it has structs within structs or lists of a fixed size.

    Where such an array is a part of a longer one, arrow-rs cuts the inner struct twice.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return _is_cut_wrongly(kind.storage_type, is_inner=is_inner)
    if pa.types.is_struct(kind):
        return is_inner or any(_is_cut_wrongly(field.type, is_inner=True) for field in kind)
    if pa.types.is_map(kind):
        return any(_is_cut_wrongly(t, is_inner=True) for t in (kind.key_type, kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return _is_cut_wrongly(kind.value_type, is_inner=True)
    if pa.types.is_union(kind):
        return any(_is_cut_wrongly(kind.field(at).type) for at in range(kind.num_fields))
    inner = getattr(kind, "value_type", None)
    return isinstance(inner, pa.DataType) and _is_cut_wrongly(inner, is_inner=is_inner)


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"


def _is_of(data: Any, package: str) -> bool:  # noqa: ANN401
    return type(data).__module__.partition(".")[0] == package


def with_uuids_as_text(column: pa.Array) -> pa.Array:
    """The column with Arrow's UUIDs, or lists of them, as texts; any other as it is."""
    item = column.type
    is_list = hasattr(item, "value_field") and not pa.types.is_dictionary(item)
    item = item.value_type if is_list else item
    if getattr(item, "extension_name", None) != "arrow.uuid":
        return column
    if is_list:
        lists = [
            None if row is None else [each and str(each) for each in row]
            for row in column.to_pylist()
        ]
        return pa.array(lists, pa.list_(pa.string()))
    return pa.array([each and str(each) for each in column.to_pylist()], pa.string())
