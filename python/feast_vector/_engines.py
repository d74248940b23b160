"""Engines that live through forks."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from typing import TYPE_CHECKING, cast

from feast_vector._core import Engine
from feast_vector._same_process import watch

if TYPE_CHECKING:
    from feast_vector.online_store import VectorOnlineStoreConfig

# An exit that takes longer says why.
_SILENT_SECONDS = 1.0

_live: weakref.WeakSet[Engine] = weakref.WeakSet()
_building: set[Engine] = set()


def open_engine(path: str, config: VectorOnlineStoreConfig) -> Engine:
    """An engine over the file, which closes its connections before the process forks.

    SQLite's connections must not be carried through a fork. ``feast serve``, Gunicorn, Ray and
    ``multiprocessing`` all fork by way of Python, which calls the hooks below.
    """
    engine = Engine(
        path,
        durability=config.durability,
        busy_timeout=config.busy_timeout,
        search_threads=config.search_threads,
        builds_indexes=config.index_builds == "background",
        # Validated by the configuration, which holds it as a number.
        file_mode=cast("int | None", config.file_mode),
    )
    _live.add(engine)
    watch(path)
    return engine


def keep_while_building(engine: Engine) -> None:
    """Keep an engine that has an index to build of what it wrote.

    ``feast materialize`` lets go of its store before the interpreter ends, and a builder ends with
    its engine.
    """
    _building.difference_update([kept for kept in list(_building) if not kept.is_building()])
    if engine.is_building():
        _building.add(engine)


def _finish_builds() -> None:
    """Let indexes be finished that this process has written rows for; Ctrl-C leaves them."""
    started = time.monotonic()
    told = False

    def waiting() -> bool:
        nonlocal told
        if not told and time.monotonic() - started > _SILENT_SECONDS:
            told = True
            print("feast-vector: building the vector index (Ctrl-C leaves it)", file=sys.stderr)  # noqa: T201
        return True

    try:
        for engine in list(_live):
            engine.finish_builds(waiting)
    except KeyboardInterrupt:
        pass
    # What is still being built, stops.
    for engine in list(_live):
        engine.close()


atexit.register(_finish_builds)


def _before_fork() -> None:
    for engine in list(_live):
        engine.before_fork()


def _after_fork() -> None:
    for engine in list(_live):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
