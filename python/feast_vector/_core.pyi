"""The native core of feast-vector."""

import os
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, Protocol, TypeAlias, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = [
    "DEBUG_BUILD",
    "FORMAT_VERSION",
    "ISA",
    "Engine",
    "FeatureReads",
    "View",
    "__version__",
    "backup",
    "compact",
    "default_limits",
    "encode_entity_key",
    "error_kinds",
    "normalize_metric",
    "restore",
    "serialize_entities",
    "serialize_entity_keys",
    "serialize_values",
    "verify",
    "verify_backup",
]

__version__: str
DEBUG_BUILD: Final[bool]
"""Whether the core was built without optimisation."""
FORMAT_VERSION: Final[int]
"""The file format that this version writes."""
ISA: Final[str]
"""The instruction set that the kernels use on this machine."""

_Literal: TypeAlias = bool | int | float | str | bytes | tuple[int] | tuple[str] | None
_Condition: TypeAlias = tuple[str, str, list[_Literal]] | tuple[str, int]

class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

class _Batches(Protocol):
    """What `feast_vector._stream` makes of validated values."""

    schema: pa.Schema

    def batches(self) -> Iterator[pa.RecordBatch]: ...

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
        text_features: Features whose texts are to be searchable; none, if text search is off.
        vector_indexes: (feature, metric, index type, recall) of features whose vectors are to be
            indexed.
    """

    def __new__(
        cls,
        project: str,
        name: str,
        version: int = 0,
        join_keys: list[tuple[str, str]] = ...,
        features: list[tuple[str, str, int | None]] = ...,
        text_features: list[str] = ...,
        vector_indexes: list[tuple[str, str, str, float]] = ...,
    ) -> View: ...

@final
class FeatureReads:
    """Reads of several feature views, before it is known of which entities.

    Args:
        columns: Names of the columns that the entities' values come in.
        reads: For each view its join keys and the place of each one's column, the features, each
            once, and their names in the response.
    """

    def __new__(
        cls,
        columns: list[str],
        reads: list[tuple[View, list[tuple[str, int]], list[str], list[str]]],
    ) -> FeatureReads: ...

@final
class Engine:
    """An online store over one database file. Opens nothing before its first use.

    Args:
        path: The database file; the folder above its own has to exist.
        durability: What a commit waits for: ``"full"``, ``"normal"`` or ``"off"``.
        busy_timeout: Seconds that a writer waits for other writers.
        search_threads: The most threads that one search uses; 0 for as many as there are cores.
        builds_indexes: Whether vector indexes are built in the background.
        file_mode: Permissions of a database that is created. Unset: private to its owner, or the
            group's too in a folder that a group shares.
        limits: How much one call may ask for, as in :func:`default_limits`, which holds if they are
            not given; all of them, each a whole number.

    All methods raise :class:`feast_vector.errors.FeastVectorError`.
    """

    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "normal", "off"] = "full",
        busy_timeout: float = 30.0,
        search_threads: int = 0,
        builds_indexes: bool = True,
        file_mode: int | None = None,
        limits: dict[str, int] | None = None,
    ) -> Engine: ...
    def apply(
        self,
        project: str,
        views: list[View],
        dropped: list[tuple[str, int | None]],
        progress: Callable[[str, int, int], Any] | None = None,
    ) -> list[tuple[str, str | None, str, str, int]]:
        """Make the project's tables what the views say; drop those of the dropped views.

        A dropped view is a name and a version, or None for every version.

        Where a text index has to be filled, ``progress`` is called with the view's name, the rows
        done, and all rows.

        Returns:
            Stored values that have to be written again: view, feature (None for the join keys),
            what it was, what it is, and how many rows.
        """

    def feast_sqlite_table(self, view: View) -> str | None:
        """The table of Feast's own sqlite store that has the view's rows, where ours has none."""

    def drop_project(self, project: str) -> None:
        """Drop every table of the project and shrink the file."""

    def write(
        self,
        view: View,
        batches: _ArrowStream | _Batches,
        *,
        newest_event_wins: bool = True,
        ttl_seconds: int | None = None,
        first_row: int = 0,
    ) -> tuple[int, int]:
        """Write all batches in one transaction, or nothing.

        ``first_row`` is the number of the first row in messages.

        Columns of each batch: ``entity_key`` (binary: serialized ``EntityKey``),
        ``event_timestamp`` and ``created_timestamp`` (timestamps), then a binary column of
        serialized ``Value`` for each feature; null leaves the feature as it is.

        Returns:
            How many rows were written, and how many were older than the stored ones and ignored.
        """

    def read(
        self,
        view: View,
        keys: list[bytes],
        features: list[str] | None = None,
        *,
        typed: bool = False,
        cpu_seconds: float | None = None,
    ) -> pa.RecordBatch:
        """Read features by entity key (serialized ``EntityKey``), a row for each key.

        ``cpu_seconds`` is what it may take of the processors, unbounded if not given.

        Returns:
            ``event_timestamp`` (UTC, null where there is no row), then a binary column for each
            feature: serialized ``Value``, empty for a null value, null for an absent feature. If
            ``typed``: the join keys, the features in native types, ``event_timestamp``.
        """

    def features(
        self,
        reads: FeatureReads,
        columns: list[bytes],
        entities: int | None = None,
        *,
        cpu_seconds: float | None = None,
    ) -> tuple[bytes, list[int]]:
        """Read features of several views, all as of one moment, by column.

        Args:
            reads: What is read.
            columns: The entities: for each of the reads' columns a serialized ``RepeatedValue``,
                all of as many values.
            entities: How many entities there are, if they are to lead the response.
            cpu_seconds: What it may take of the processors; unbounded, if not given.

        Returns:
            A serialized ``GetOnlineFeaturesResponse`` with the names and vectors in the order of
            the reads, and for each view how many of its values are there.
        """

    def search(
        self,
        view: View,
        *,
        top_k: int,
        offset: int = 0,
        feature: str | None = None,
        queries: npt.NDArray[np.float64] | None = None,
        metric: str = "cosine",
        max_distance: float | None = None,
        texts: list[str] | None = None,
        text_match: str = "any",
        rrf_k: float = 60.0,
        vector_weight: float = 1.0,
        text_weight: float = 1.0,
        filter: list[_Condition] | None = None,  # noqa: A002
        not_before: int | None = None,
        features: list[str] | None = None,
        exact: bool = False,
        explain: bool = False,
        numbers_queries: bool = False,
        typed: bool = False,
        cpu_seconds: float | None = None,
    ) -> tuple[pa.RecordBatch, str | None]:
        """Find the best rows for each query, best first; those of the first query come first.

        Args:
            view: The feature view.
            top_k: The most rows for each query.
            offset: The best rows that are passed over for each query.
            feature: The feature that holds the vectors.
            queries: Query vectors of shape ``(q, d)``.
            metric: How distance is measured.
            max_distance: Rows further away are left out.
            texts: Query texts; with ``queries`` as many, and the two rankings are fused.
            text_match: ``"any"``, ``"all"``, ``"phrase"`` or ``"prefix"``.
            rrf_k: The k of reciprocal rank fusion.
            vector_weight: Weight of the ranking by vector in the fusion.
            text_weight: Weight of the ranking by text.
            filter: A filter in postfix order; times are ``(microseconds,)``, decimals
                ``(digits,)``.
            not_before: Rows of an event time before this, in microseconds, are left out.
            features: Features of the rows; all, if not given.
            exact: Whether every vector in question is compared, whatever index there is.
            explain: Whether to say how the rows were found.
            numbers_queries: Whether a typed answer has the column ``query``.
            typed: Whether features are answered in native types.
            cpu_seconds: What it may take of the processors, over all threads, without bringing what
                is in memory up to date; unbounded, if not given.

        Returns:
            ``entity_key`` (serialized ``EntityKey``), ``event_timestamp``, ``distance`` (float64,
            lower is nearer), ``text_rank`` (float64, BM25, higher is better), then the features as
            :meth:`read` gives them. If ``typed``: ``query`` (int32, if asked for), the join keys,
            the features in native types, ``event_timestamp``, and what there is of ``distance``,
            ``text_rank`` and ``score`` (float64, the fused one). And how they were found, as JSON,
            if asked for.
        """

    def optimize(self, view: View, feature: str | None = None) -> str:
        """Build the view's vector indexes anew, or one; gives reports by feature, as JSON."""

    def indexes(self, view: View) -> str:
        """Give the view's vector indexes, their segments and what was measured, as JSON."""

    def is_building(self) -> bool:
        """Whether an index is being built, or about to be, of what this engine wrote."""

    def finish_builds(self, waiting: Callable[[], bool]) -> None:
        """Wait for indexes being built of what this engine wrote, until ``waiting`` says no."""

    def delete(self, view: View, keys: list[bytes]) -> int:
        """Delete rows by entity key (serialized ``EntityKey``); says how many were there."""

    def count(self, view: View, filter: list[_Condition] | None = None) -> int:  # noqa: A002
        """How many rows have not expired and pass the filter."""

    def sql(
        self,
        sql: str,
        parameters: list[int | float | str | bytes | None],
        *,
        timeout: float | None = ...,
        max_rows: int | None = ...,
        max_bytes: int | None = ...,
        max_length: int | None = ...,
    ) -> pa.RecordBatch:
        """Run one reading SQL statement; columns are of int64, float64, string or binary.

        Args:
            sql: A single statement. It may read every project in the file.
            parameters: Values of its parameters.
            timeout: Seconds that it may take; 30 by default.
            max_rows: The most rows of the answer; 1,000,000 by default.
            max_bytes: The most bytes of the answer.
            max_length: The most bytes of a value or a row, stored or in between; 16 MiB by default.
        """

    def close(self) -> None:
        """Close every connection and let go of all vectors; the next call opens anew."""

    def holds_locks(self) -> bool:
        """Whether nothing else in the process can drop the locks on the database."""

    def before_fork(self) -> None:
        """Hold off new operations, and wait some milliseconds for those under way."""

    def after_fork_in_parent(self) -> None:
        """Let operations start again in the process that forked."""

    def after_fork_in_child(self) -> None:
        """Let operations start in the child, with what is in memory if nothing was under way."""

def error_kinds() -> dict[str, str]:
    """Every error kind with the name of its exception class."""

def default_limits() -> dict[str, int]:
    """How much one call may ask for, where an engine is opened without limits."""

def encode_entity_key(message: bytes) -> bytes:
    """Serialize an ``EntityKey`` message as Feast's serialization version 3 does."""

def normalize_metric(name: str) -> str:
    """Give the canonical name of a metric: ``cosine``, ``L2``, ``inner_product`` or ``L1``."""

def serialize_values(
    feast_type: str, array: pa.Array, *, as_feast_does: bool = False, first_row: int = 0
) -> pa.Array | None:
    """Serialize the elements of an array as ``Value`` messages, empty ones for nulls.

    Args:
        feast_type: The Feast type of the values, as in ``feast.ValueType``.
        array: Any Arrow array.
        as_feast_does: Write what Feast's own conversion does: null for not-a-number, the least
            timestamp for a null one, and in lists not-a-number, false or an empty text. Otherwise
            values are written exactly, and what the type does not hold is an error.
        first_row: The number of the first row, for messages.

    Returns:
        A binary array, or None where Feast's own conversion has to judge: maps, structs, and JSON
        that is not text; and, as Feast does, sets and arrays of a type that does not obviously
        hold such values.
    """

def serialize_entity_keys(names: list[str], columns: list[pa.Array]) -> pa.Array:
    """Serialize ``EntityKey`` messages from serialized values of each join key, by column."""

def serialize_entities(feast_type: str, values: list[Any]) -> bytes | None:
    """Serialize entities' values as one ``RepeatedValue``.

    Args:
        feast_type: Their type, named as in ``feast.ValueType``.
        values: Plain ``int`` for INT32 and INT64, plain ``str`` for STRING.

    Returns:
        None where a value is anything else, or the type another.
    """

_Progress: TypeAlias = Callable[[str, int, int | None], Any]

def backup(
    engine: Engine,
    target: str | os.PathLike[str],
    *,
    replace: bool = False,
    progress: _Progress | None = None,
) -> str:
    """Copy the database and its index files into a new folder; gives the manifest, as JSON.

    ``progress`` is called with a stage's name, what is done of it, and all there is, None if that
    is not known. What it raises, ``KeyboardInterrupt`` among that, ends the work.
    """

def restore(
    engine: Engine,
    source: str | os.PathLike[str],
    *,
    keep: bool = True,
    progress: _Progress | None = None,
) -> str:
    """Swap the database for a backup's; gives what was restored, replaced and kept, as JSON."""

def verify(engine: Engine, *, limit: int = 100, progress: _Progress | None = None) -> str:
    """Check everything; gives what is wrong, at most ``limit`` of each kind in full, as JSON."""

def verify_backup(
    folder: str | os.PathLike[str], *, limit: int = 100, progress: _Progress | None = None
) -> str:
    """Check a backup without writing to it; gives the same as :func:`verify`."""

def compact(engine: Engine, *, progress: _Progress | None = None) -> str:
    """Rewrite the database without gaps; gives bytes before and after, as JSON."""
