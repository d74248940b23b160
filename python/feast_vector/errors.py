"""The exceptions of feast-vector, cut by what a handler would do about them.

Every one carries ``kind``, a stable machine-readable code such as ``"disk_full"``;
:func:`feast_vector._core.error_kinds` lists them all with their classes.
"""

from __future__ import annotations


class FeastVectorError(Exception):
    """Anything that feast-vector reports.

    Attributes:
        kind: Stable code of what went wrong.
    """

    kind: str

    def __init__(self, message: str, kind: str = "unknown") -> None:
        """Make an error that reads ``message``."""
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[FeastVectorError], tuple[str, str]]:
        """Pickle with the kind, as process pools do."""
        return type(self), (str(self), self.kind)


class InvalidInputError(FeastVectorError, ValueError):
    """The call's arguments are wrong; the same call will fail again."""


class NotFoundError(FeastVectorError, ValueError):
    """There is no feature of that name."""


class BusyError(FeastVectorError, TimeoutError):
    """Another writer holds the database; trying again later may work."""


class StorageError(FeastVectorError, OSError):
    """The operating system or the disk refused."""


class FormatError(FeastVectorError):
    """The file is not one that this version can read."""


class InternalError(FeastVectorError, RuntimeError):
    """A bug in feast-vector; please report it."""
