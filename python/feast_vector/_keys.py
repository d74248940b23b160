"""Entity keys as callers of the native API give them: values, dicts, columns and frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from feast_vector import _arrow, protos
from feast_vector.errors import InvalidInputError

if TYPE_CHECKING:
    from feast.value_type import ValueType

# Types of keys that are taken as they are.
_PLAIN = {int, str}


def serialized(view: str, types: Mapping[str, ValueType], keys: Any) -> list[bytes]:  # noqa: ANN401
    """Serialized entity keys of the view with join keys of those types, in their order.

    Args:
        view: The view's name, for messages.
        types: The type of each join key.
        keys: A value, or values, of the one join key; a dict, or dicts, of all; a dict of columns;
            or an Arrow table, a data frame or a series.

    Raises:
        InvalidInputError: Keys that are not the view's.
    """
    names = list(types)
    if len(names) == 1 and type(keys) is list and set(map(type, keys)) <= _PLAIN:
        return _encoded(view, types, {names[0]: keys})
    for part in keys.values() if isinstance(keys, Mapping) else (keys,):
        _arrow.validate(part, f"feature view '{view}', keys")
    rows = _rows(keys)
    if isinstance(rows, Mapping):
        columns = {str(name): column for name, column in rows.items()}
        if hasattr(keys, "__arrow_c_stream__") or hasattr(keys, "__arrow_c_array__"):
            # A frame may have other columns, too.
            columns = {name: columns[name] for name in names if name in columns}
    else:
        if len(names) == 1:
            rows = [row if isinstance(row, Mapping) else {names[0]: row} for row in rows]
        if not all(isinstance(row, Mapping) and set(row) == set(names) for row in rows):
            raise _wrong(view, names)
        if not names:
            return protos.entity_keys({}, {}, len(rows))
        columns = {name: [_plain(row[name]) for row in rows] for name in names}
    if set(columns) != set(names):
        raise _wrong(view, names)
    return _encoded(view, types, columns)


def _encoded(
    view: str, types: Mapping[str, ValueType], columns: Mapping[str, list[Any]]
) -> list[bytes]:
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        message = f"feature view '{view}': the columns of join keys differ in length"
        raise InvalidInputError(message, "invalid_key")
    try:
        return protos.entity_keys(columns, types, lengths.pop() if lengths else 0)
    except InvalidInputError as error:
        message = f"feature view '{view}', {error}"
        raise InvalidInputError(message, "invalid_key") from error


def _rows(keys: Any) -> Mapping[Any, list[Any]] | list[Any]:  # noqa: ANN401
    """Columns by name, or a list of values or dicts."""
    if isinstance(keys, Mapping):
        columns = {name: _column(column) for name, column in keys.items()}
        if columns and all(column is None for column in columns.values()):
            # One entity.
            return [{name: _plain(value) for name, value in keys.items()}]
        return {
            name: [_plain(keys[name])] if column is None else column
            for name, column in columns.items()
        }
    if not isinstance(keys, pa.Array | pa.ChunkedArray) and hasattr(keys, "columns"):
        if hasattr(keys, "to_pylist"):
            return dict(zip(keys.schema.names, map(_values, keys.columns), strict=True))
        if hasattr(keys, "__arrow_c_stream__"):
            table = pa.RecordBatchReader.from_stream(keys).read_all()
            return dict(zip(table.schema.names, map(_values, table.columns), strict=True))
    column = _column(keys)
    return [_plain(keys)] if column is None else column


def _values(column: Any) -> list[Any]:  # noqa: ANN401
    values: list[Any] = column.to_pylist()
    return values


def _column(values: Any) -> list[Any] | None:  # noqa: ANN401
    """The values of a column; None for a single value."""
    if isinstance(values, str | bytes | bytearray | Mapping) or not isinstance(values, Iterable):
        return None
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return _values(values)
    if isinstance(values, np.ndarray) and values.ndim == 0:
        return None
    if isinstance(values, pa.Scalar):
        return None
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A value without numpy's or Arrow's type around it."""
    if isinstance(value, pa.Scalar):
        return value.as_py()
    is_numpys = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim)
    return value.item() if is_numpys else value


def _wrong(view: str, names: Sequence[str]) -> InvalidInputError:
    named = ", ".join(names) or "none"
    example = repr(dict.fromkeys(names, "…"))
    message = (
        f"feature view '{view}': keys have to have its join keys, which are: {named}; pass "
        + ("values, " if len(names) == 1 else "")
        + f"dicts such as {example}, a column for each, or a data frame"
    )
    return InvalidInputError(message, "invalid_key")
