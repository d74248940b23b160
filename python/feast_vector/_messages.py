"""What users are told once."""

from __future__ import annotations

import logging

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
