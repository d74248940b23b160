"""Backups, restores, checks and compaction of a store, while it serves and is written to.

Every function takes a Feast ``FeatureStore`` or the path of a database file. Without ``progress``
nothing is shown; Ctrl-C ends each of them within a fraction of a second and leaves nothing half.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from feast_vector import _core
from feast_vector.errors import StorageError

if TYPE_CHECKING:
    from feast import FeatureStore

StoreLike: TypeAlias = "FeatureStore | str | os.PathLike[str]"
"""A feature store whose online store is feast-vector's, or the path of its database file."""

Progress: TypeAlias = Callable[[str, int, "int | None"], Any]
"""Called with the name of a stage, what is done of it, and all there is, None if not known."""


def backup(
    store: StoreLike,
    target: str | os.PathLike[str],
    *,
    replace: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Copy the database and its vector indexes, all of one moment, into a new folder.

    Readers and writers go on meanwhile. The folder appears under its name when it is complete and
    on the disk.

    Args:
        store: What to back up.
        target: The folder to make; it must not exist, or be empty.
        replace: Put the backup in the place of an older one.
        progress: Hears how far it is.

    Returns:
        The backup's manifest: ``created``, ``format_version``, the files with their sizes and
        CRC-32 checksums, and ``views`` with their numbers of ``rows``.

    Raises:
        InvalidInputError: The target is there already, or its parent folder is not.
        StorageError: There is no database, or the disk is full.
    """
    engine = _engine(store, must_exist=True)
    manifest = _core.backup(engine, target, replace=replace, progress=progress)
    return _parsed(manifest)


def restore(
    store: StoreLike,
    source: str | os.PathLike[str],
    *,
    keep: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Put the content of a backup in the place of the database, which may be in use.

    The backup is copied and checked first; then the files are swapped while writers wait. Every
    process answers its next call from the restored file, with the indexes that came along. A
    process that is killed in the middle leaves the old content or the new.

    Args:
        store: What to restore.
        source: A folder that :func:`backup` has made.
        keep: Keep the file that is replaced, as ``<database>.before-restore-…``.
        progress: Hears how far it is.

    Returns:
        ``restored`` and ``replaced`` (the views with their numbers of rows; None where nothing
        was there or it could not be read), ``kept`` (the path of the replaced file, or None), and
        when the backup was ``created``.

    Raises:
        InvalidInputError: The source is not a backup.
        FormatError: The backup is damaged or of a newer version; nothing was changed.
        BusyError: A writer held the database for longer than ``busy_timeout``.
    """
    engine = _engine(store, must_exist=False)
    return _parsed(_core.restore(engine, source, keep=keep, progress=progress))


def verify(
    store: StoreLike, *, limit: int = 100, progress: Progress | None = None
) -> dict[str, Any]:
    """Check a store, or a backup, from its pages to its indexes, all as of one moment.

    The database's pages; the catalog against the tables; every row's entity key, times and cells
    against their columns; the text index against the texts; the vector indexes against the
    vectors, with every checksum. Values that changed into other valid values of the same type
    cannot be told (``docs/adr/0007``).

    Args:
        store: What to check; or the folder of a backup, whose files are compared with its manifest
            first, and to which nothing is written.
        limit: The most findings of each kind that are listed.
        progress: Hears how far it is.

    Returns:
        ``ok``; the numbers of ``rows`` and of indexed ``vectors`` that were checked; ``counts`` of
        what is wrong, by kind; ``findings``, each with ``check``, ``message``, and where known
        ``project``, ``view``, ``version``, ``feature``, ``row_id``, ``entity_key`` and ``file``;
        and ``notes``, which are no damage.

    Raises:
        FormatError: The file is not a database of ours, or a backup's files are not what its
            manifest says.
    """
    if isinstance(store, str | os.PathLike) and Path(store).is_dir():
        return _parsed(_core.verify_backup(Path(store), limit=limit, progress=progress))
    engine = _engine(store, must_exist=True)
    return _parsed(_core.verify(engine, limit=limit, progress=progress))


def compact(store: StoreLike, *, progress: Progress | None = None) -> dict[str, Any]:
    """Give back the disk space of deleted and rewritten rows, dropped views and old indexes.

    Rewrites the database, for which there has to be space. Readers go on; writers wait, up to
    their ``busy_timeout``.

    Returns:
        Bytes of the database, its log and its index files ``before`` and ``after``.
    """
    return _parsed(_core.compact(_engine(store, must_exist=True), progress=progress))


def _engine(store: StoreLike, *, must_exist: bool) -> _core.Engine:
    if isinstance(store, str | os.PathLike):
        path = Path(store)
        if must_exist and not path.exists():
            message = f"there is no database '{path}'"
            raise StorageError(message, "cannot_open")
        from feast_vector._engines import open_engine
        from feast_vector.config import VectorOnlineStoreConfig

        return open_engine(
            str(path.absolute()),
            VectorOnlineStoreConfig(path=str(path), index_builds="on_demand"),
        )
    from feast_vector.online_store import store_of

    return store_of(store).engine(store.config)


def _parsed(report: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(report)
    return parsed
