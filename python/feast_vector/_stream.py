"""Rows on their way to the engine, as an Arrow stream that is made piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from feast_vector._engines import keep_while_building

if TYPE_CHECKING:
    from feast_vector import _core

_ROWS_PER_BATCH = 1024
_BYTES_PER_BATCH = 16 * 2**20

TIMESTAMP = pa.timestamp("us", "UTC")
"""How the engine takes times."""

MESSAGE = pa.binary()
"""A feature's column of serialized values."""


def numbers(kind: pa.DataType) -> list[pa.Field]:
    """The parts of a feature's column of numbers, and of serialized values where these are null."""
    return [pa.field("number", kind), pa.field("message", MESSAGE)]


@lru_cache(maxsize=256)
def schema(features: tuple[str, ...], kinds: tuple[pa.DataType, ...]) -> pa.Schema:
    """The columns that the engine writes: keys, two timestamps, and the features' own."""
    return pa.schema(
        [
            pa.field("entity_key", pa.binary()),
            pa.field("event_timestamp", TIMESTAMP),
            pa.field("created_timestamp", TIMESTAMP),
            *map(pa.field, features, kinds),
        ]
    )


def rows_per_batch(bytes_per_row: int) -> int:
    """How many rows of that size belong in a batch, several of which are in memory at once."""
    return max(1, min(_ROWS_PER_BATCH, _BYTES_PER_BATCH // max(1, bytes_per_row)))


class BatchStream:
    """Batches of one schema, made when the core takes them, of values that have been validated.

    Attributes:
        schema: The schema.
        error: What went wrong while making one, which the core would flatten to a string.
    """

    def __init__(
        self, batch_schema: pa.Schema, makers: Sequence[Callable[[], Iterable[pa.RecordBatch]]]
    ) -> None:
        """Prepare the stream; nothing is made yet."""
        self.schema = batch_schema
        self.error: BaseException | None = None
        self._makers = makers

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Make the batches."""
        try:
            for make in self._makers:
                yield from make()
        except GeneratorExit:  # The core takes no more.
            raise
        except BaseException as error:
            self.error = error
            raise


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
