"""What the ``online_store`` section of ``feature_store.yaml`` may say."""

from __future__ import annotations

import os
import re
from typing import Literal

from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import (
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from feast_vector import _core, views
from feast_vector.foreign_options import translated
from feast_vector.limits import Limits


class VectorOnlineStoreConfig(FeastConfigBaseModel):
    """The ``online_store`` section of ``feature_store.yaml``.

    Options of other stores are translated, or left out with a warning; unknown ones are refused.
    """

    # Sections of other stores have passwords in them.
    model_config = ConfigDict(hide_input_in_errors=True)

    type: Literal[
        "vector",
        "feast_vector.VectorOnlineStore",
        "feast_vector.online_store.VectorOnlineStore",
    ] = "vector"
    """The store's name, or its class path where the name is not registered."""

    path: StrictStr = "data/online.db"
    """The database file; a relative path starts at the feature repo, ``~`` is the home folder."""

    vector_enabled: StrictBool | None = True
    """Whether vectors may be searched."""

    similarity: StrictStr | None = "cosine"
    """Metric of vector fields that declare none: ``cosine``, ``L2``, ``inner_product``, ``L1``."""

    index_type: Literal["auto", "flat", "ivf"] = "auto"
    """How vectors are indexed: ``ivf`` in lists of which a search goes through the nearest,
    ``flat`` in one, ``auto`` by how many there are. A field's tag ``feast_vector.index_type``
    outweighs it."""

    target_recall: float = Field(default=0.99, ge=views.LEAST_RECALL, le=1)
    """The share of the true nearest rows that a search of lists is to find; measured when an index
    is built. A field's tag ``feast_vector.target_recall`` outweighs it."""

    index_builds: Literal["background", "on_demand"] = "background"
    """Whether vector indexes are built in the background, or by ``feast-vector optimize`` alone."""

    text_search_enabled: StrictBool = False
    """Whether the texts of a view's String features are indexed and may be searched."""

    text_features: list[StrictStr] | None = None
    """Features whose texts are indexed, as ``feature`` or ``view:feature``; all String features, if
    unset. A view's tag ``feast_vector.text_features`` outweighs it."""

    text_match: Literal["any", "all", "phrase", "prefix"] = "any"
    """What of a query string a row has to have: any of its words, all, all side by side, or all
    with the last as the beginning of one."""

    rrf_k: float = Field(default=60.0, ge=0)
    """The k of reciprocal rank fusion, which searches by vector and text are fused by."""

    vector_weight: float = Field(default=1.0, ge=0)
    """Weight of the ranking by vector in the fusion."""

    text_weight: float = Field(default=1.0, ge=0)
    """Weight of the ranking by text in the fusion."""

    enforce_ttl: StrictBool = False
    """Whether reads and searches leave out rows past their view's ttl. By default they do not, as
    in Feast's other stores."""

    max_top_k: int = Field(default=16_384, ge=1)
    """The most rows that one of Feast's searches answers; more are an error."""

    limits: Limits = Limits()
    """How much one call may ask for."""

    enable_openai_compatible_store: StrictBool | None = None
    """Accepted, because Feast's stores have it; filters and OpenAI's search work either way."""

    write_conflict: Literal["newest_event_wins", "last_write_wins"] = "newest_event_wins"
    """What a write does to a row with a later event timestamp."""

    key_ttl_seconds: int | None = Field(default=None, gt=0)
    """Seconds after its last write when a row vanishes; never, if unset."""

    durability: Literal["full", "normal", "off"] = "full"
    """``full``: a written batch survives a power cut; ``normal``: a killed process; ``off``: that
    too, but a power cut may damage the file."""

    busy_timeout: float = Field(default=30.0, ge=0, le=86_400)
    """Seconds that a writer waits for other writers."""

    file_mode: StrictStr | StrictInt | None = None
    """Permissions of a database that is created, as for ``chmod``, such as ``"0660"`` for a group;
    the index, the log and the lock files follow. Unset: private to the owner (``0600``), or the
    group's too (``0660``) in a directory that a group shares (setgid and writable for it). Files
    that are there keep their permissions. Ignored on Windows."""

    search_threads: int = Field(default=0, ge=0, le=1024)
    """The most threads that one search uses; 0 for as many as there are cores."""

    @model_validator(mode="before")
    @classmethod
    def _translated(cls, options: object) -> object:
        return translated(options, cls.model_fields) if isinstance(options, dict) else options

    @field_validator("path")
    @classmethod
    def _local_path(cls, value: str) -> str:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|file:", value):
            message = "the store is a file on this machine; write its path, not a URL"
            raise ValueError(message)
        return os.path.expanduser(value) if value.startswith("~") else value  # noqa: PTH111

    @field_validator("similarity")
    @classmethod
    def _known_metric(cls, value: str | None) -> str | None:
        if value is not None:
            _core.normalize_metric(value)
        return value

    @field_validator("file_mode")
    @classmethod
    def _known_mode(cls, value: str | int | None) -> int | None:
        return None if value is None else _mode(value)


# Feast looks for the store in the module that the class of its configuration names.
VectorOnlineStoreConfig.__module__ = "feast_vector.online_store"


def _mode(value: str | int) -> int:
    """Permission bits; YAML reads an unquoted ``0660`` as the octal number that it is."""
    readable = re.fullmatch("[0-7]{3,4}", value) if isinstance(value, str) else True
    mode = int(value, 8) if readable and isinstance(value, str) else value
    if not isinstance(mode, int) or mode & ~0o666 or mode & 0o600 != 0o600:  # noqa: PLR2004
        message = (
            'permissions of a file that its owner reads and writes, in octal: "0600", "0640", '
            f'"0660" or "0664"; got {value!r}'
        )
        raise ValueError(message)
    return mode


def database_path(config: RepoConfig) -> str:
    """The database file of a feature repo."""
    # An absolute path stays what it is when joined. Not by pathlib, which takes 15 microseconds.
    return os.path.join(config.repo_path or "", config.online_store.path)  # noqa: PTH118
