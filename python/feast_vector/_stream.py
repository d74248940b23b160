"""Rows on their way to the engine, as an Arrow stream that is made piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from feast_vector._engines import keep_while_building

if TYPE_CHECKING:
    from feast_vector import _core

ROWS_PER_BATCH = 2048

TIMESTAMP = pa.timestamp("us", "UTC")
"""How the engine takes times."""


def schema(features: Sequence[str]) -> pa.Schema:
    """The columns that the engine writes: serialized messages and two timestamps."""
    return pa.schema(
        [
            pa.field("entity_key", pa.binary()),
            pa.field("event_timestamp", TIMESTAMP),
            pa.field("created_timestamp", TIMESTAMP),
            *(pa.field(name, pa.binary()) for name in features),
        ]
    )


class BatchStream:
    """Batches of one schema, each made when the one before is handed over.

    Attributes:
        error: What went wrong while making one, which Arrow's C interface would flatten to a
            string.
    """

    def __init__(
        self, batch_schema: pa.Schema, makers: Sequence[Callable[[], pa.RecordBatch]]
    ) -> None:
        """Prepare the stream; the first batch is made at once."""
        self.error: Exception | None = None
        self._schema = batch_schema
        self._makers = makers[1:]
        self._first = makers[0]()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the stream."""
        reader = pa.RecordBatchReader.from_batches(self._schema, self._batches())
        return reader.__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if not self._makers:
            yield self._first
            return
        # The next batch is made while the core, without the interpreter's lock, writes this one.
        with ThreadPoolExecutor(max_workers=1) as ahead:
            pending = ahead.submit(self._makers[0])
            yield self._first
            for following in (*self._makers[1:], None):
                try:
                    batch = pending.result()
                except Exception as error:
                    self.error = error
                    raise
                if following is not None:
                    pending = ahead.submit(following)
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
