"""Reading by Feast's file store, without the needless part.

Its dask names every step by what is in the data: each data frame is hashed several times over, and
columns of objects, such as embeddings, are pickled and unpickled for it. That is four fifths of the
time that a table of embeddings takes. A name has to be the same for the same frame and another for
another, and no more.
"""

from __future__ import annotations

import sys
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Names:
    """A name for each object, as long as it lives."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], str]] = {}

    def __call__(self, thing: object) -> str:
        known = self._known.get(id(thing))
        if known is not None and known[0]() is thing:
            return known[1]
        name = uuid.uuid4().hex
        self._known[id(thing)] = (weakref.ref(thing), name)
        return name


_lock = threading.Lock()
_depth = 0
_feasts_own: Any = None


@contextmanager
def frames_named_by_identity() -> Iterator[None]:
    """Have dask name data frames by which they are, not by what is in them."""
    if "dask" not in sys.modules:
        yield
        return
    import pandas as pd
    from dask.tokenize import normalize_token

    global _depth, _feasts_own  # noqa: PLW0603
    with _lock:
        if _depth == 0:
            _feasts_own = normalize_token.dispatch(pd.DataFrame)
            normalize_token.register(pd.DataFrame, _Names())
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                normalize_token.register(pd.DataFrame, _feasts_own)
