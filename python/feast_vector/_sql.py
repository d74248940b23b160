"""SQL of the caller's, through the store's own connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from feast_vector.errors import InvalidInputError
from feast_vector.online_store import store_of

if TYPE_CHECKING:
    from feast import FeatureStore

    from feast_vector.native import Columns


def sql(  # noqa: PLR0913
    store: FeatureStore,
    statement: str,
    parameters: Sequence[Any] = (),
    *,
    as_dict: bool = False,
    timeout: float | None = 30.0,
    max_rows: int | None = 1_000_000,
    max_bytes: int | None = 256 * 2**20,
    max_length: int | None = 16 * 2**20,
) -> Columns:
    """Run one reading SQL statement through the store's own connection.

    It may read everything in the file: every feature view of every project. It changes nothing, and
    uses only functions, pragmas and tables of SQLite's that are known to be safe. Do not pass it
    statements of people who may not read all of the file. Ctrl-C stops it.

    In this process nothing else may open the database file: a second SQLite would drop the first
    one's locks.

    Args:
        store: A feature store with our online store.
        statement: A single ``SELECT``; ``?`` stand for parameters. A view ``items`` of project
            ``shop`` is the table ``shop_items``.
        parameters: Integers, floats, strings, bytes or ``None``.
        as_dict: Return a dict of lists instead of Arrow.
        timeout: Seconds that it may take; ``None`` for no limit, as for those below.
        max_rows: The most rows of the answer.
        max_bytes: The most bytes of the answer in memory.
        max_length: The most bytes of one value or row, be it stored or made on the way.

    Returns:
        A ``pyarrow.RecordBatch``. A column is of int64, float64, string or binary, whichever its
        values are; integers among floats become floats, and where texts or BLOBs stand among
        others, all are strings, BLOBs as SQL writes them (``X'00ff'``).

    Raises:
        InvalidInputError: SQL that does not parse, that would change something, or that exceeds a
            limit, which the message names.
    """
    try:
        batch = (
            store_of(store)
            .engine(store.config)
            .sql(
                statement,
                list(parameters),
                timeout=timeout,
                max_rows=max_rows,
                max_bytes=max_bytes,
                max_length=max_length,
            )
        )
    except TypeError as cause:
        message = f"parameters can be integers, floats, strings, bytes or None ({cause})"
        raise InvalidInputError(message, "invalid_sql") from cause
    return batch.to_pydict() if as_dict else batch
