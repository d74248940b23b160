"""Rows on their way to the engine, as an Arrow stream that is made piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from feast_vector._engines import keep_while_building

if TYPE_CHECKING:
    from feast_vector import _core

ROWS_PER_BATCH = 1024

TIMESTAMP = pa.timestamp("us", "UTC")
"""How the engine takes times."""

MESSAGE = pa.binary()
"""A feature's column of serialized values."""


def numbers(kind: pa.DataType) -> list[pa.Field]:
    """The parts of a feature's column of numbers, and of serialized values where these are null."""
    return [pa.field("number", kind), pa.field("message", MESSAGE)]


def schema(features: Mapping[str, pa.DataType]) -> pa.Schema:
    """The columns that the engine writes: keys, two timestamps, and the features' own."""
    return pa.schema(
        [
            pa.field("entity_key", pa.binary()),
            pa.field("event_timestamp", TIMESTAMP),
            pa.field("created_timestamp", TIMESTAMP),
            *(pa.field(name, kind) for name, kind in features.items()),
        ]
    )


class BatchStream:
    """Batches of one schema, each made when the core takes it.

    Attributes:
        error: What went wrong while making one, which Arrow's C interface would flatten to a
            string.
    """

    def __init__(
        self, batch_schema: pa.Schema, makers: Sequence[Callable[[], pa.RecordBatch]]
    ) -> None:
        """Prepare the stream; nothing is made yet."""
        self.error: BaseException | None = None
        self._schema = batch_schema
        self._makers = makers

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the stream."""
        reader = pa.RecordBatchReader.from_batches(self._schema, self._batches())
        return reader.__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for make in self._makers:
            try:
                batch = make()
            except BaseException as error:
                self.error = error
                raise
            yield batch


def write(
    engine: _core.Engine,
    view: _core.View,
    stream: BatchStream,
    **options: Any,  # noqa: ANN401
) -> tuple[int, int]:
    """Write a stream in one transaction: rows written, and rows older than what is stored."""
    try:
        counts = engine.write(view, stream, **options)
    except Exception:
        if stream.error is not None:
            raise stream.error from None
        raise
    keep_while_building(engine)
    return counts
