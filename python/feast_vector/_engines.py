"""Engines that live through forks."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from feast_vector._core import Engine
from feast_vector._same_process import watch

if TYPE_CHECKING:
    from feast_vector.online_store import VectorOnlineStoreConfig

_live: weakref.WeakSet[Engine] = weakref.WeakSet()


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
    )
    _live.add(engine)
    watch(path)
    return engine


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
