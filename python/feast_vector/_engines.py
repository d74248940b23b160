"""Engines that live through forks."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, cast

from feast_vector._core import Engine
from feast_vector._same_process import watch
from feast_vector.errors import hide_folder

if TYPE_CHECKING:
    from feast_vector.config import VectorOnlineStoreConfig

# The most that an exit waits for builds.
_EXIT_SECONDS = 1.5

_live: weakref.WeakSet[Engine] = weakref.WeakSet()
_building: set[Engine] = set()


def open_engine(path: str, config: VectorOnlineStoreConfig) -> Engine:
    """An engine over the file, of which a forked child inherits what is in memory.

    ``feast serve``, Gunicorn, Ray and ``multiprocessing`` all fork by way of Python, which calls
    the hooks below. After a fork that does not, the child's engine starts with nothing in memory.
    """
    engine = Engine(
        path,
        durability=config.durability,
        busy_timeout=config.busy_timeout,
        search_threads=config.search_threads,
        builds_indexes=config.index_builds == "background",
        # Validated by the configuration, which holds it as a number.
        file_mode=cast("int | None", getattr(config, "file_mode", None)),
        limits=config.limits.of_core(),
    )
    hide_folder(path)
    _live.add(engine)
    if not engine.holds_locks():
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
    """Wait a moment for indexes of what this process has written; Ctrl-C leaves them.

    An exit is never held for long. What is not finished is built by the next process that writes to
    the view or searches it, which looks whether an index is due, or by ``feast-vector optimize``.
    """
    deadline = time.monotonic() + _EXIT_SECONDS
    engines = list(_live)
    try:
        for engine in engines:
            engine.finish_builds(lambda: time.monotonic() < deadline)
    except KeyboardInterrupt:
        pass
    if any(engine.is_building() for engine in engines):
        print(  # noqa: T201
            "feast-vector: a vector index is not finished; searches are right without it, only "
            "slower. The next process that writes or searches goes on with it, or run "
            "`feast-vector optimize` now",
            file=sys.stderr,
        )
    # What is still being built, stops.
    for engine in engines:
        engine.close()


atexit.register(_finish_builds)


# One fork at a time: the hooks of two would open to the one what the other has shut.
_forking = threading.RLock()


def _before_fork() -> None:
    _forking.acquire()
    for engine in list(_live):
        engine.before_fork()


def _after_fork_in_parent() -> None:
    for engine in list(_live):
        engine.after_fork_in_parent()
    _forking.release()


def _after_fork_in_child() -> None:
    global _forking  # noqa: PLW0603
    _forking = threading.RLock()
    for engine in list(_live):
        engine.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
