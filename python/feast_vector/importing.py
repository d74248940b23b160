"""Rows of Feast's own sqlite online store, carried into ours.

Feast keeps a row for each entity and feature: the serialized entity key, the feature's name, its
serialized ``Value``, and two times. Values are taken as the bytes they are.
"""

from __future__ import annotations

import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import pyarrow as pa
from feast.errors import FeatureViewNotFoundException
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.protos.feast.types.Value_pb2 import FloatList, Value

from feast_vector import _stream
from feast_vector import times as _times
from feast_vector import views as _views
from feast_vector._feast_keys import key_message
from feast_vector.errors import InvalidInputError, NotFoundError, StorageError

if TYPE_CHECKING:
    import os

    from feast import FeatureStore

    from feast_vector import _core
    from feast_vector.maintenance import Progress

_VALUES_PER_PAGE = 4096
_BYTES_PER_WRITE = 16 * 2**20
_ROWS_PER_WRITE = 1024
_PROBLEMS_LISTED = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_FEASTS_TABLES = (
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND "
    "sql LIKE '%entity_key BLOB%feature_name TEXT%value BLOB%event_ts%' ORDER BY name"
)


class _Reader(Protocol):
    """Runs reading SQL on the file with Feast's tables."""

    def __call__(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[list[str], list[Any]]: ...


class _Entity(NamedTuple):
    key: bytes
    values: dict[str, bytes]
    event: int
    created: int | None
    size: int


def import_sqlite(
    store: FeatureStore,
    path: str | os.PathLike[str] | None = None,
    *,
    views: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fill a store from the rows of Feast's own sqlite online store.

    For a repo that changed its online store's ``type`` from ``sqlite`` to ``vector``. Feast's
    tables stay as they are. Rows keep their event and created times; where a row is stored
    already, the newest event wins. May be repeated, and goes on where it was interrupted.

    Args:
        store: The feature store, whose online store is feast-vector's.
        path: The file of Feast's store; the store's own file, if not given.
        views: Feature views to import; all of the repo, if not given.
        progress: Called with the view's name, the values done and all its values.

    Returns:
        ``views``: for each ``view`` with a table how many ``entities`` were read, ``written``, and
        ``ignored`` because what is stored is newer, ``unknown_features`` with their numbers of
        values, and ``unreadable`` rows in words. ``unknown_tables``: tables of Feast's store that
        are of no feature view, with their numbers of values.

    Raises:
        StorageError: There is no such file, or it cannot be read.
        NotFoundError: There is no feature view of that name.
        InvalidInputError: A view that is named has no table in the file.
    """
    from feast_vector.config import database_path
    from feast_vector.online_store import store_of

    engine = store_of(store).engine(store.config)
    own = Path(database_path(store.config))
    source = own if path is None else Path(path)
    if not source.is_file():
        message = f"there is no file '{source}'"
        raise StorageError(message, "cannot_open")
    if own.exists() and source.samefile(own):
        return _Import(store, engine, _through(engine), source).run(views, progress)
    uri = f"{source.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            return _Import(store, engine, _over(connection), source).run(views, progress)
    except sqlite3.Error as cause:
        message = f"'{source}' cannot be read: {cause}"
        raise StorageError(message, "cannot_open") from cause


def _through(engine: _core.Engine) -> _Reader:
    """Read the store's own file, which no other SQLite in this process may open."""

    def run(sql: str, parameters: Sequence[Any] = ()) -> tuple[list[str], list[Any]]:
        batch = engine.sql(sql, list(parameters))
        columns = [column.to_pylist() for column in batch.columns]
        return batch.schema.names, list(zip(*columns, strict=True))

    return run


def _over(connection: sqlite3.Connection) -> _Reader:
    def run(sql: str, parameters: Sequence[Any] = ()) -> tuple[list[str], list[Any]]:
        cursor = connection.execute(sql, parameters)
        return [column[0] for column in cursor.description], cursor.fetchall()

    return run


class _Import:
    """One run over one file."""

    def __init__(
        self, store: FeatureStore, engine: _core.Engine, read: _Reader, source: Path
    ) -> None:
        self._store = store
        self._config = store.config
        self._engine = engine
        self._read = read
        self._source = source

    def run(self, names: Sequence[str] | None, progress: Progress | None) -> dict[str, Any]:
        tables = [row[0] for row in self._read(_FEASTS_TABLES)[1]]
        every = {self._table_of(view): view for view in self._views(None)}
        chosen = {self._table_of(view): view for view in self._views(names)}
        for table, view in chosen.items():
            if names and table not in tables:
                message = (
                    f"feature view '{view.name}': there is no table '{table}' of Feast's sqlite "
                    f"store in '{self._source}'"
                )
                raise InvalidInputError(message, "invalid_argument")
        reports = [
            self._import(view, table, progress) for table, view in chosen.items() if table in tables
        ]
        unknown = {table: self._count(table) for table in tables if table not in every}
        return {"views": reports, "unknown_tables": unknown}

    def _views(self, names: Sequence[str] | None) -> list[Any]:
        if names is None:
            found = self._store.list_all_feature_views()
            return [view for view in found if hasattr(view, "features")]
        registry, project = self._store.registry, self._store.project
        try:
            return [registry.get_any_feature_view(name, project) for name in names]
        except FeatureViewNotFoundException as error:
            raise NotFoundError(str(error), "unknown_feature") from error

    def _table_of(self, view: Any) -> str:  # noqa: ANN401
        versions = self._config.registry.enable_online_feature_view_versioning
        return f"{self._config.project}_{compute_versioned_name(view, versions)}"

    def _count(self, table: str) -> int:
        return cast("int", self._read(f"SELECT count(*) FROM {_quoted(table)}")[1][0][0])

    def _import(self, view: Any, table: str, progress: Progress | None) -> dict[str, Any]:  # noqa: ANN401
        names = [field.name for field in view.features]
        unknown: Counter[str] = Counter()
        problems: Counter[str] = Counter()
        report = {
            "view": view.name,
            "table": table,
            "entities": 0,
            "written": 0,
            "ignored": 0,
            "unknown_features": unknown,
        }
        declaration = _views.declaration(self._config, view)
        options = _views.write_options(self._config, view) | {"newest_event_wins": True}
        batch: list[_Entity] = []
        size = 0

        def write(rows: list[_Entity]) -> None:
            try:
                stream = _stream_of(rows, names)
                written, ignored = _stream.write(self._engine, declaration, stream, **options)
            except InvalidInputError as error:
                # One row that ours refuses, because no reader could read it, stops no others.
                if len(rows) == 1:
                    problems[str(error)] += 1
                    return
                middle = len(rows) // 2
                write(rows[:middle])
                write(rows[middle:])
                return
            report["written"] += written
            report["ignored"] += ignored

        for entity in self._entities(view, table, set(names), unknown, problems, progress):
            report["entities"] += 1
            batch.append(entity)
            size += entity.size
            if len(batch) >= _ROWS_PER_WRITE or size >= _BYTES_PER_WRITE:
                write(batch)
                batch, size = [], 0
        if batch:
            write(batch)
        listed = [f"{count:,} rows: {text}" for text, count in problems.most_common()]
        return report | {
            "unknown_features": dict(unknown),
            "unreadable": listed[:_PROBLEMS_LISTED],
        }

    def _entities(  # noqa: PLR0913, PLR0917
        self,
        view: Any,  # noqa: ANN401
        table: str,
        names: set[str],
        unknown: Counter[str],
        problems: Counter[str],
        progress: Progress | None,
    ) -> Iterator[_Entity]:
        """The entities with their values, in the order of their keys."""
        columns = getattr(view, "entity_columns", [])
        join_keys = sorted(field.name for field in columns) or [DUMMY_ENTITY_ID]
        rows: list[Any] = []
        for row in self._values(view.name, table, progress):
            if rows and row[0] != rows[0][0]:
                yield from _entity(rows, names, join_keys, unknown, problems)
                rows = []
            rows.append(row)
        if rows:
            yield from _entity(rows, names, join_keys, unknown, problems)

    def _values(self, view: str, table: str, progress: Progress | None) -> Iterator[Any]:
        """All rows of Feast's table, a page at a time."""
        stored, _ = self._read(f"SELECT * FROM {_quoted(table)} LIMIT 0")
        vector = "CASE WHEN value IS NULL THEN CAST(vector_value AS BLOB) END"
        select = (
            "SELECT CAST(entity_key AS BLOB), CAST(feature_name AS TEXT), CAST(value AS BLOB), "
            f"{vector if 'vector_value' in stored else 'NULL'}, CAST(event_ts AS TEXT), "
            f"CAST(created_ts AS TEXT) FROM {_quoted(table)} "
        )
        order = f"ORDER BY entity_key, feature_name LIMIT {_VALUES_PER_PAGE}"
        total, done, after = self._count(table), 0, ""
        parameters: list[Any] = []
        while True:
            page = self._read(f"{select}{after}{order}", parameters)[1]
            yield from page
            done += len(page)
            if progress:
                progress(view, done, max(total, done))
            if len(page) < _VALUES_PER_PAGE:
                return
            after = "WHERE (entity_key, feature_name) > (?, ?) "
            parameters = list(page[-1][:2])


def _entity(
    rows: list[Any],
    names: set[str],
    join_keys: list[str],
    unknown: Counter[str],
    problems: Counter[str],
) -> Iterator[_Entity]:
    """The entity that these rows of Feast's are of, unless they cannot be read."""
    values: dict[str, bytes] = {}
    events: list[int] = []
    created: list[int] = []
    try:
        key = key_message(rows[0][0], join_keys)
        for _, feature, value, vector, event, made in rows:
            if feature not in names:
                unknown[feature] += 1
                continue
            time = _micros(event)
            if time is None:
                problems[f"feature '{feature}' has no event time"] += 1
                continue
            events.append(time)
            if made is not None and (time := _micros(made)) is not None:
                created.append(time)
            values[feature] = _value(value, vector)
    except (ValueError, OverflowError, OSError, struct.error) as cause:
        problems[str(cause)] += len(rows)
        return
    if values:
        size = len(key) + sum(map(len, values.values()))
        yield _Entity(key, values, max(events), max(created, default=None), size)


def _value(value: bytes | None, vector: bytes | None) -> bytes:
    """A serialized ``Value``; an empty one is a null."""
    if value is None and vector:
        floats = FloatList(val=struct.unpack(f"<{len(vector) // 4}f", vector))
        return cast("bytes", Value(float_list_val=floats).SerializeToString())
    return value or b""


def _stream_of(entities: list[_Entity], names: list[str]) -> _stream.BatchStream:
    used = tuple(name for name in names if any(name in entity.values for entity in entities))
    schema = _stream.schema(used, (_stream.MESSAGE,) * len(used))
    columns: list[Any] = [
        pa.array([entity.key for entity in entities], pa.binary()),
        pa.array([entity.event for entity in entities], pa.int64()).cast(_stream.TIMESTAMP),
        pa.array([entity.created for entity in entities], pa.int64()).cast(_stream.TIMESTAMP),
        *(
            pa.array([entity.values.get(name) for entity in entities], _stream.MESSAGE)
            for name in used
        ),
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    return _stream.BatchStream(schema, [lambda: [batch]])


def _micros(stored: str | None) -> int | None:
    """Microseconds since 1970 of a time as Feast's store has it.

    Feast takes a naive UTC time for a local one when it stores its seconds, and undoes that when it
    reads; older versions stored text.
    """
    if stored is None:
        return None
    try:
        naive = datetime.fromtimestamp(int(stored))  # noqa: DTZ006
        aware = naive.replace(tzinfo=timezone.utc)
    except ValueError:
        aware = _times.from_text(stored)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
