"""Threads for calls that are awaited: some for reads, others for writes.

A write may wait for its turn for seconds. In asyncio's own pool such writes would take every
thread, and reads would wait behind them.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Literal, TypeVar

# One writes at a time, whatever their number; the others wait for it without using a core.
_THREADS = {"read": min(32, (os.cpu_count() or 1) + 4), "write": 8}

# By process: a child has none of its parent's threads.
_pools: dict[tuple[int, str], ThreadPoolExecutor] = {}
_lock = Lock()

T = TypeVar("T")


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603
    _lock = Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _pool(kind: Literal["read", "write"]) -> ThreadPoolExecutor:
    key = (os.getpid(), kind)
    pool = _pools.get(key)
    if pool is None:
        with _lock:
            pool = _pools.get(key)
            if pool is None:
                name = f"feast-vector-{kind}"
                pool = _pools[key] = ThreadPoolExecutor(_THREADS[kind], thread_name_prefix=name)
    return pool


async def in_thread(
    kind: Literal["read", "write"], function: Callable[..., T], /, *arguments: object
) -> T:
    """Call a function in a thread for such calls, with the caller's context variables."""
    context = contextvars.copy_context()
    call = partial(context.run, function, *arguments)
    return await asyncio.get_running_loop().run_in_executor(_pool(kind), call)
