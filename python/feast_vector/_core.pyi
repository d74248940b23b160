"""The native core of feast-vector."""

import os
from typing import Final, Literal, Protocol, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = [
    "DEBUG_BUILD",
    "FORMAT_VERSION",
    "ISA",
    "Engine",
    "View",
    "__version__",
    "encode_entity_key",
    "error_kinds",
    "normalize_metric",
]

__version__: str
DEBUG_BUILD: Final[bool]
"""Whether the core was built without optimisation."""
FORMAT_VERSION: Final[int]
"""The file format that this version writes."""
ISA: Final[str]
"""The instruction set that the kernels use on this machine."""

class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

@final
class View:
    """A feature view: its identity, join keys and features.

    Args:
        project: Feast project.
        name: Name of the feature view, without a version.
        version: Version of the view, 0 if it has none.
        join_keys: (name, Feast type) of each join key, without the dummy key.
        features: (name, Feast type, vector length or None) of each feature. Feast types are
            named as in ``feast.ValueType``: ``"INT64"``, ``"FLOAT_LIST"``.
    """

    def __new__(
        cls,
        project: str,
        name: str,
        version: int = 0,
        join_keys: list[tuple[str, str]] = ...,
        features: list[tuple[str, str, int | None]] = ...,
    ) -> View: ...

@final
class Engine:
    """An online store over one database file. Opens nothing before its first use.

    Args:
        path: The database file; the folder above its own has to exist.
        durability: What a commit waits for: ``"full"``, ``"normal"`` or ``"off"``.
        busy_timeout: Seconds that a writer waits for other writers.
        search_threads: The most threads that one search uses; 0 for as many as there are cores.

    All methods raise :class:`feast_vector.errors.FeastVectorError`.
    """

    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "normal", "off"] = "full",
        busy_timeout: float = 30.0,
        search_threads: int = 0,
    ) -> Engine: ...
    def apply(self, project: str, views: list[View], dropped: list[str]) -> None:
        """Make the project's tables what the views say; drop those of the dropped views."""

    def drop_project(self, project: str) -> None:
        """Drop every table of the project and shrink the file."""

    def write(
        self,
        view: View,
        batches: _ArrowStream,
        *,
        newest_event_wins: bool = True,
        ttl_seconds: int | None = None,
    ) -> tuple[int, int]:
        """Write all batches in one transaction, or nothing.

        Columns of each batch: ``entity_key`` (binary: serialized ``EntityKey``),
        ``event_timestamp`` and ``created_timestamp`` (timestamps), then a binary column of
        serialized ``Value`` for each feature; null leaves the feature as it is.

        Returns:
            How many rows were written, and how many were older than the stored ones and ignored.
        """

    def read(
        self, view: View, keys: list[bytes], features: list[str] | None = None
    ) -> pa.RecordBatch:
        """Read features by entity key (serialized ``EntityKey``), a row for each key.

        Returns:
            ``event_timestamp`` (UTC, null where there is no row), then a binary column for each
            feature: serialized ``Value``, empty for a null value, null for an absent feature.
        """

    def search(
        self,
        view: View,
        feature: str,
        query: npt.NDArray[np.float64],
        *,
        metric: str,
        top_k: int,
        features: list[str],
    ) -> pa.RecordBatch:
        """Find the rows whose vectors are nearest to ``query`` of shape ``(d,)``, best first.

        Returns:
            ``entity_key`` (serialized ``EntityKey``), ``event_timestamp``, ``distance`` (float64,
            lower is nearer), then the features as :meth:`read` gives them.
        """

    def close(self) -> None:
        """Close every connection and let go of all vectors; the next call opens anew."""

    def before_fork(self) -> None:
        """Wait for running operations, hold off new ones, and close every connection."""

    def after_fork(self) -> None:
        """Let operations start again, in the parent and in the child."""

def error_kinds() -> dict[str, str]:
    """Every error kind with the name of its exception class."""

def encode_entity_key(message: bytes) -> bytes:
    """Serialize an ``EntityKey`` message as Feast's serialization version 3 does."""

def normalize_metric(name: str) -> str:
    """Give the canonical name of a metric: ``cosine``, ``L2`` or ``inner_product``."""
