"""The exceptions of feast-vector, cut by what a handler would do about them.

Every one carries ``kind``, a stable machine-readable code such as ``"disk_full"``;
:func:`feast_vector._core.error_kinds` lists them all with their classes.

Where Feast is imported they are Feast's errors as well, so that its server answers with a status
that says what to do: 503 for a store that is busy, 422 for bad input, 404 for what is not there,
507 for a full disk. Nothing here imports Feast.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, ClassVar, cast

if TYPE_CHECKING:
    from typing_extensions import Self

_ABSOLUTE = r"(?:/|\\\\|[A-Za-z]:[\\/])"
_STORE = re.compile(rf"online store '{_ABSOLUTE}[^']*'")
_PATH = re.compile(rf"'{_ABSOLUTE}(?:[^']*[\\/])?([^'\\/]*)'")

# Folders of databases in use: an apostrophe in a path hides where it ends.
_folders: set[str] = set()


def hide_folder(database: str) -> None:
    """Have what strangers are told leave out the folder of a database, however it is spelled."""
    spelled = (database, os.path.abspath(database), os.path.realpath(database))  # noqa: PTH100
    folders = {os.path.dirname(path) for path in spelled}  # noqa: PTH120
    _folders.update(folder for folder in folders if "'" in folder)


def _without_paths(message: str) -> str:
    for folder in sorted(_folders, key=len, reverse=True):
        name = os.path.basename(folder).replace("'", "_")  # noqa: PTH119
        message = message.replace(f"'{folder}'", f"'/{name}'").replace(folder + os.sep, "/")
    return _PATH.sub(r"'\1'", _STORE.sub("the online store", message))


class FeastVectorError(Exception):
    """Anything that feast-vector reports.

    Attributes:
        kind: Stable code of what went wrong.
    """

    kind: str = "unknown"

    _http_status: ClassVar[int] = 500
    _grpc_status: ClassVar[str] = "INTERNAL"
    _plain: ClassVar[type[FeastVectorError] | None] = None

    def __new__(cls, message: str = "", kind: str = "unknown") -> Self:  # noqa: ARG004
        """Make an error, which is one of Feast's as well where Feast is imported."""
        feasts = getattr(sys.modules.get("feast.errors"), "FeastError", None)
        if feasts is None or issubclass(cls, feasts):
            return super().__new__(cls, message)
        joined = cast("type[Self]", _joined(cls, feasts))
        return super().__new__(joined, message)

    def __init__(self, message: str = "", kind: str = "unknown") -> None:
        """Make an error that reads ``message``."""
        super().__init__(message)
        self.kind = kind

    def __str__(self) -> str:
        """Give the message; one that Feast's client received, if it made the error."""
        # Feast makes errors of responses without calling their constructors.
        received = self.__dict__.get("__overridden_message__")
        return str(received if received is not None else self.args[0] if self.args else "")

    def __reduce__(self) -> tuple[type[FeastVectorError], tuple[str, str]]:
        """Pickle with the kind, as process pools do."""
        return self._plain or type(self), (str(self), self.kind)

    def http_status_code(self) -> int:
        """The status that Feast's server answers with."""
        return {"disk_full": 507, "out_of_resources": 503}.get(self.kind, self._http_status)

    def grpc_status_code(self) -> object:
        """The status that Feast's gRPC servers answer with, a ``grpc.StatusCode``."""
        import grpc  # type: ignore[import-untyped]

        return grpc.StatusCode[self._grpc_status]

    def to_error_detail(self) -> str:
        """What Feast's server answers: the message without paths, which are for the log alone."""
        message = _without_paths(str(self))
        name = (self._plain or type(self)).__name__
        return json.dumps({"module": __name__, "class": name, "message": message})


_known: dict[tuple[type, type], type] = {}


def _joined(cls: type[FeastVectorError], feasts: type[Exception]) -> type:
    joined = _known.get((cls, feasts))
    if joined is None:
        names = {"__module__": cls.__module__, "__doc__": cls.__doc__, "_plain": cls}
        joined = _known[cls, feasts] = type(cls.__name__, (cls, feasts), names)
    return joined


class InvalidInputError(FeastVectorError, ValueError):
    """The call's arguments are wrong; the same call will fail again."""

    _http_status = 422
    _grpc_status = "INVALID_ARGUMENT"


class NotFoundError(FeastVectorError, ValueError):
    """There is no feature of that name."""

    _http_status = 404
    _grpc_status = "NOT_FOUND"


class BusyError(FeastVectorError, TimeoutError):
    """Another writer holds the database; trying again later may work."""

    _http_status = 503
    _grpc_status = "UNAVAILABLE"


class StorageError(FeastVectorError, OSError):
    """The operating system or the disk refused."""


class FormatError(FeastVectorError):
    """The file is not one that this version can read."""


class InternalError(FeastVectorError, RuntimeError):
    """A bug in feast-vector; please report it."""
