"""A warning when something in the store's process opens its files, where that is dangerous.

POSIX locks belong to the process: when anything in it closes the file, the locks that SQLite holds
on it are gone, and another process may then overwrite what is being read
(https://sqlite.org/howtocorrupt.html, section 2.2). On Linux the store's locks are of another kind,
which nothing else can drop, and nothing is watched. Elsewhere, and on file systems that have no
others, Python announces what it opens to audit hooks. Ours costs 0.2 microseconds for each audited
event (measured); none is raised while features are read or written.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

_watched: set[str] = set()


def watch(path: str) -> None:
    """Warn from now on when this database, its log or its index is opened in this process."""
    if not _watched:
        sys.addaudithook(_make_hook())
    real = os.path.realpath(path)
    _watched.update((real, f"{real}-wal", f"{real}-shm"))


def _make_hook() -> Callable[[str, tuple[object, ...]], None]:
    # It keeps all that it needs: a module's own names are gone when the interpreter ends.
    watched, events = _watched, {"sqlite3.connect": "sqlite3 opens", "open": "something opens"}
    fsdecode, realpath, basename = os.fsdecode, os.path.realpath, os.path.basename
    warn, category = warnings.warn, RuntimeWarning
    str_like = (str, bytes, os.PathLike)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        opens = events.get(event)
        if opens is None or not arguments or not isinstance(arguments[0], str_like):
            return
        name = fsdecode(arguments[0])
        # Cheaper than to resolve every path that is opened.
        if not any(path.endswith(basename(name)) for path in watched):
            return
        path = realpath(name)
        if path in watched:
            warn(
                f"{opens} '{path}', which feast-vector uses in this process; when it closes the "
                "file, feast-vector's locks on it are lost and data may be damaged. Use "
                "`feast_vector.sql(store, ...)`, or open or copy it from another process",
                category,
                stacklevel=3,
            )

    return hook
