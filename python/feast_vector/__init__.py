"""The online store that Feast never had: typed rows in SQLite, vectors searched by SIMD.

Set ``type: vector`` in the ``online_store`` section of ``feature_store.yaml``; there is nothing to
import. The full class path ``feast_vector.online_store.VectorOnlineStore`` works as well.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

from feast_vector import _core
from feast_vector.errors import (
    BusyError,
    FeastVectorError,
    FormatError,
    InternalError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)

if TYPE_CHECKING:
    from feast_vector._sql import sql
    from feast_vector.config import VectorOnlineStoreConfig
    from feast_vector.importing import import_sqlite
    from feast_vector.maintenance import backup, compact, restore, verify
    from feast_vector.native import VectorView, open_view, search
    from feast_vector.online_store import VectorOnlineStore

__version__ = _core.__version__

__all__ = [
    "BusyError",
    "FeastVectorError",
    "FormatError",
    "InternalError",
    "InvalidInputError",
    "NotFoundError",
    "StorageError",
    "VectorOnlineStore",
    "VectorOnlineStoreConfig",
    "VectorView",
    "__version__",
    "backup",
    "compact",
    "import_sqlite",
    "open_view",
    "restore",
    "search",
    "sql",
    "verify",
]

if _core.DEBUG_BUILD:
    warnings.warn(
        "feast_vector was built without optimisation and is many times slower than a release: "
        "measure nothing with it. Build with `maturin develop --release`.",
        RuntimeWarning,
        stacklevel=2,
    )

if (_repo_config := sys.modules.get("feast.repo_config")) is not None:
    # Feast was imported where the .pth file did not run, such as under `python -S`.
    for _table, _class in (
        ("ONLINE_STORE_CLASS_FOR_TYPE", "feast_vector.online_store.VectorOnlineStore"),
        ("BATCH_ENGINE_CLASS_FOR_TYPE", "feast_vector.compute_engine.VectorComputeEngine"),
    ):
        getattr(_repo_config, _table, {}).setdefault("vector", _class)


_LAZY = {
    "VectorOnlineStore": "online_store",
    "VectorOnlineStoreConfig": "config",
    "VectorView": "native",
    "backup": "maintenance",
    "compact": "maintenance",
    "import_sqlite": "importing",
    "open_view": "native",
    "restore": "maintenance",
    "search": "native",
    "sql": "_sql",
    "verify": "maintenance",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import what needs Feast, and Feast with it, only when it is asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"feast_vector.{_LAZY[name]}"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
