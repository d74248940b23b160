"""Keeping search results whole on their way through Feast.

``FeatureStore._retrieve_from_online_store_v2`` of Feast 0.67 takes a store's rows, best first,
lists their entity keys in that order, but places their features and timestamps in the order of the
*sorted* keys: the caller gets each key with another row's features. That happens to every store.

Ours answers such a call with features and timestamps permuted so that Feast's placement puts them
back. Whether the installed Feast does this is found by trying it once with two rows; and only calls
that come from that method are answered so, so that whoever asks the store directly gets whole rows.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import CodeType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast_vector.protos import Document

# Providers and decorators stand between Feast's method and the store's; far fewer than this.
_FRAMES = 16


def for_caller(rows: list[Document]) -> list[Document]:
    """The rows as the caller needs them, so that it ends up with whole ones, best first."""
    from feast.feature_store import FeatureStore

    method = FeatureStore._retrieve_from_online_store_v2  # noqa: SLF001
    if len(rows) < 2 or not _called_from(method) or not _scrambles(method):  # noqa: PLR2004
        return rows
    return _permuted(rows)


def _permuted(rows: list[Document]) -> list[Document]:
    from feast import utils

    columns: dict[str, list[Any]] = {}
    for _, key, _ in rows:
        if key is not None:
            for name, value in zip(key.join_keys, key.entity_values, strict=True):
                columns.setdefault(name, []).append(value)
    # Feast puts what stands at position i where the i-th of the sorted keys stood.
    _, positions, _ = utils._get_unique_entities_from_values(columns)  # noqa: SLF001
    if len(positions) != len(rows):
        return rows
    return [
        (rows[position][0], key, rows[position][2])
        for (_, key, _), (position, *_rest) in zip(rows, positions, strict=True)
    ]


def _called_from(method: Callable[..., Any]) -> bool:
    codes: set[CodeType] = {method.__code__, inspect.unwrap(method).__code__}
    frame = sys._getframe(1)  # noqa: SLF001
    for _ in range(_FRAMES):
        if frame.f_code in codes:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


@functools.lru_cache(maxsize=8)
def _scrambles(method: Callable[..., Any]) -> bool:
    """Whether the method tears rows apart, found by having it place two of them."""
    from feast import FeatureView, Field
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.types import Int64

    rows = [
        (
            None,
            EntityKey(join_keys=["id"], entity_values=[Value(int64_val=number)]),
            {"copy": Value(int64_val=number), "distance": Value(float_val=0.0)},
        )
        for number in (2, 1)
    ]
    view = FeatureView(
        name="feast_vector_probe",
        entities=[],
        schema=[Field(name="copy", dtype=Int64)],
        source=None,
    )
    provider = SimpleNamespace(retrieve_online_documents_v2=lambda **_: rows)
    try:
        response = method(
            SimpleNamespace(config=None), provider, view, ["copy"], [0.0], 2, None, None
        ).to_dict()
    except Exception:  # noqa: BLE001  # A Feast with other internals: nothing is known of a fault.
        return False
    return bool(response["id"] != response["copy"])
