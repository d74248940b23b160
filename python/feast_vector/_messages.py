"""What users are told once: rows that were ignored, values that went stale, tables left behind."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feast_vector import _core

logger = logging.getLogger("feast_vector")

_told_of_ignored: set[str] = set()


def rows_ignored(view: str, written: int, ignored: int) -> None:
    """Log how many rows were ignored: as a warning once for a view, then at level INFO."""
    if not ignored:
        return
    level = logging.INFO if view in _told_of_ignored else logging.WARNING
    _told_of_ignored.add(view)
    logger.log(
        level,
        "feature view '%s': %d of %d rows were ignored, because what is stored has a later event "
        "timestamp; `write_conflict: last_write_wins` in the online_store section writes them",
        view,
        ignored,
        written + ignored,
    )


def values_stale(stale: Iterable[tuple[str, str | None, str, str, int]]) -> None:
    """Warn of stored values that a changed declaration leaves behind."""
    for view, feature, was, now, rows in stale:
        again = f"fill them again, such as by `feast materialize --views {view} START END`"
        if feature is None:
            message = (
                f"feature view '{view}': its join keys were {was} and are {now} by now; {rows} "
                f"rows, which no such key finds, were dropped: {again}"
            )
        else:
            message = (
                f"feature view '{view}', feature '{feature}': it was {was} and is {now} by now; "
                f"{rows} rows keep their values of before, which searches, filters and typed reads "
                f"leave out, until they are written: {again}"
            )
        warnings.warn(message, UserWarning, stacklevel=4)


def table_unfilled(engine: _core.Engine, view: _core.View, name: str) -> None:
    """Warn where Feast's own sqlite store has rows of the view in this file, and ours has none."""
    table = engine.feast_sqlite_table(view)
    if table is not None:
        warnings.warn(
            f"feature view '{name}' has no rows, but the table '{table}' of Feast's own sqlite "
            "store in the same file has; run `feast-vector import` in the feature repo to take "
            "them over, or `feast materialize` to load them again (materialize-incremental goes on "
            "from where it was)",
            UserWarning,
            stacklevel=4,
        )
