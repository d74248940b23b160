"""Writing Arrow data: each column is serialized as a whole, without a proto for every value."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL

from feast_vector import _arrow, _core, _stream, protos, times, views
from feast_vector.errors import InvalidInputError

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.repo_config import RepoConfig
    from feast.value_type import ValueType

ROWS_AT_ONCE = 65_536
"""Rows of a transaction, if nobody says otherwise: other writers get their turn in between."""

EVENT_TIMESTAMP = "event_timestamp"
"""The column of event times of a view without a source."""

# How pandas calls an index without a name.
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


class TableWriter:
    """Writes Arrow data of one shape into a view.

    Attributes:
        written: Rows written so far.
        ignored: Rows so far that were older than what is stored.
    """

    def __init__(
        self,
        engine: _core.Engine,
        config: RepoConfig,
        table: FeatureView,
        shape: pa.Schema,
        *,
        as_feast_does: bool,
    ) -> None:
        """Check that the columns are those of the view.

        Args:
            engine: The store's engine.
            config: Feast's configuration.
            table: The feature view.
            shape: The columns that there are.
            as_feast_does: Whether every value becomes what Feast's own compute engine makes of it,
                and columns that are not the view's are passed over. Otherwise values stay what they
                are, features may be left out, and other columns are an error.

        Raises:
            InvalidInputError: A column is missing, or not one of the view's.
        """
        self.written = 0
        self.ignored = 0
        self._rows = 0
        self._engine = engine
        self._declaration = views.declaration(config, table)
        self._options = views.write_options(config, table)
        self._place = f"feature view '{table.name}'"
        self._as_feast_does = as_feast_does
        self._keys = _types(table.entity_columns)
        features = _types(table.features)
        source = getattr(table, "batch_source", None)
        self._event = (source.timestamp_field if source else None) or EVENT_TIMESTAMP
        self._created = (source.created_timestamp_column if source else None) or None
        self._check(shape, features)
        names = set(shape.names)
        self._features = {name: kind for name, kind in features.items() if name in names}
        if not as_feast_does and self._created not in names:
            self._created = None
        self._schema = _stream.schema(
            tuple(self._features), (_stream.MESSAGE,) * len(self._features)
        )

    def write(
        self,
        reader: pa.RecordBatchReader,
        rows_at_once: int = ROWS_AT_ONCE,
        progress: Callable[[int], Any] | None = None,
    ) -> None:
        """Write the batches, so many rows in a transaction: all of these or, with an error, none.

        Raises:
            InvalidInputError: A value that its feature cannot hold.
        """
        for pieces in _transactions(_arrow.batches(reader, self._place), rows_at_once):
            counts = [piece.num_rows for piece in pieces]
            starts = accumulate(counts, initial=self._rows)
            stream = _stream.BatchStream(
                self._schema,
                [
                    partial(self._serialized, piece, start)
                    for piece, start in zip(pieces, starts, strict=False)
                ],
            )
            written, ignored = _stream.write(
                self._engine,
                self._declaration,
                stream,
                first_row=self._rows,
                **self._options,
            )
            self.written += written
            self.ignored += ignored
            self._rows += sum(counts)
            if progress:
                progress(sum(counts))

    def _check(self, shape: pa.Schema, features: dict[str, ValueType]) -> None:
        needed = [name for name in self._keys if name != DUMMY_ENTITY_ID]
        needed.append(self._event)
        optional = [self._created] if self._created else []
        if self._as_feast_does:
            needed += [*features, *optional]
        missing = [name for name in needed if name not in shape.names]
        if missing:
            message = (
                f"{self._place}: the data has no column {_quoted(missing)}; it has: "
                f"{', '.join(shape.names) or 'none'}"
            )
            raise InvalidInputError(message, "invalid_argument")
        twice = sorted({name for name in shape.names if shape.names.count(name) > 1})
        known = {*needed, *optional, *features, *self._keys}
        strange = [name for name in shape.names if name not in known | _index_columns(shape)]
        if twice:
            message = f"{self._place}: the data has {_quoted(twice)} more than once"
            raise InvalidInputError(message, "invalid_argument")
        if strange and not self._as_feast_does:
            message = (
                f"{self._place}: the data has the column {_quoted(strange)}, which the view does "
                f"not; it has: {', '.join(dict.fromkeys([*needed, *optional, *features]))}"
            )
            raise InvalidInputError(message, "invalid_argument")

    def _serialized(self, batch: pa.RecordBatch, row: int) -> Iterator[pa.RecordBatch]:
        keys = [
            self._values(batch, row, name, kind, "join key") for name, kind in self._keys.items()
        ]
        yield pa.RecordBatch.from_arrays(
            [
                _core.serialize_entity_keys(list(self._keys), keys),
                self._times(batch, row, self._event, needed=True),
                self._times(batch, row, self._created),
                *(self._values(batch, row, name, kind) for name, kind in self._features.items()),
            ],
            schema=self._schema,
        )

    def _values(
        self, batch: pa.RecordBatch, row: int, name: str, kind: ValueType, role: str = "feature"
    ) -> pa.Array:
        if name == DUMMY_ENTITY_ID and name not in batch.schema.names:
            column = pa.array([DUMMY_ENTITY_VAL] * batch.num_rows)
        else:
            column = batch.column(name)
        if kind.name in _TEXTS:
            column = _arrow.with_uuids_as_text(column)
        try:
            values = _core.serialize_values(
                kind.name, column, as_feast_does=self._as_feast_does, first_row=row
            )
            if values is None:
                values = protos.serialize_values(
                    column, kind, as_feast_does=self._as_feast_does, first_row=row
                )
        except Exception as cause:
            message = (
                f"{self._place}, {role} '{name}' ({kind.name}): values of Arrow's type "
                f"{column.type} cannot be written: {cause or type(cause).__name__}"
            )
            raise InvalidInputError(message, "invalid_value") from cause
        return values

    def _times(
        self, batch: pa.RecordBatch, row: int, name: str | None, *, needed: bool = False
    ) -> pa.Array:
        if name is None:
            return pa.nulls(batch.num_rows, _stream.TIMESTAMP)
        column = batch.column(name)
        try:
            found = times.microseconds(column, as_feast_does=self._as_feast_does, first_row=row)
        except (TypeError, ValueError, pa.ArrowException) as cause:
            message = f"{self._place}, column '{name}' ({column.type}): no timestamps: {cause}"
            raise InvalidInputError(message, "invalid_value") from cause
        if needed and found.null_count:
            row += found.is_null().index(True).as_py()
            message = f"{self._place}, column '{name}': row {row} has no event timestamp"
            raise InvalidInputError(message, "invalid_value")
        return found


_TEXTS = {"STRING", "STRING_LIST", "STRING_SET"}
"""Kinds that would take a UUID's bytes for UTF-8."""


def _index_columns(shape: pa.Schema) -> set[str]:
    """Columns that are a pandas frame's index: what is left of one that was filtered or sorted."""
    described = json.loads((shape.metadata or {}).get(b"pandas", b"{}"))
    named = {name for name in described.get("index_columns", ()) if isinstance(name, str)}
    return named | {name for name in shape.names if _UNNAMED_INDEX.fullmatch(name)}


def _types(fields: Iterable[Any]) -> dict[str, ValueType]:
    return {field.name: field.dtype.to_value_type() for field in fields}


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _transactions(
    batches: Iterable[pa.RecordBatch], rows_at_once: int
) -> Iterator[list[pa.RecordBatch]]:
    """The rows in pieces for the stream, as many pieces together as belong in a transaction."""
    pieces: list[pa.RecordBatch] = []
    room = rows_at_once
    for batch in batches:
        start = 0
        most = _stream.rows_per_batch(batch.nbytes // max(1, batch.num_rows))
        while start < batch.num_rows:
            piece = batch.slice(start, min(room, most))
            pieces.append(piece)
            start += piece.num_rows
            room -= piece.num_rows
            if room == 0:
                yield pieces
                pieces, room = [], rows_at_once
    if pieces:
        yield pieces
