"""The online store that Feast sees: arguments in, answers out, all work in the native core.

Feast looks for the configuration in the store's own module, so both are here.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feast import Entity, FeatureView
from feast.infra.infra_object import InfraObject
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
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

from feast_vector import _core, _messages, _stream, arguments, protos, rank_order, views
from feast_vector._engines import open_engine
from feast_vector._executors import in_thread
from feast_vector._progress import TextIndexProgress
from feast_vector.column_reads import INLINE_KEYS, ColumnReads
from feast_vector.errors import InvalidInputError
from feast_vector.filters import conditions
from feast_vector.foreign_options import translated

if TYPE_CHECKING:
    from feast.filter_models import ComparisonFilter, CompoundFilter
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
    from feast.protos.feast.types.Value_pb2 import Value as ValueProto
    from numpy.typing import NDArray


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
    """The database file; a relative path starts at the feature repo."""

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


class VectorOnlineStore(ColumnReads):
    """Features as one typed row per entity in SQLite; embeddings searched by SIMD kernels."""

    def __init__(self) -> None:
        """Make a store; nothing is opened before its first use."""
        super().__init__()
        self._engines: dict[tuple[object, ...], _core.Engine] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without what belongs to this process."""
        return {**super().__getstate__(), "_engines": {}}

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Reads and writes may be awaited."""
        return SupportedAsyncMethods(read=True, write=True)

    # --- writing

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[protos.FeatureRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows in one transaction: all of them or, with an error, none.

        A row whose event timestamp is older than the stored one's is ignored, unless
        ``write_conflict`` says otherwise. A feature that a row leaves out keeps its value.
        """
        if not data:
            return
        stream = protos.write_stream(data, table.features)
        declaration = views.declaration(config, table)
        counts = _stream.write(
            self.engine(config), declaration, stream, **views.write_options(config, table)
        )
        _messages.rows_ignored(table.name, *counts)
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[protos.FeatureRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write as :meth:`online_write_batch` does, in another thread."""
        await in_thread("write", self.online_write_batch, config, table, data, progress)

    # --- reading

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[protos.ReadRow]:
        """Read features by entity key: a row for each key, in their order."""
        keys = protos.serialize_keys(entity_keys)
        engine, view = self.engine(config), views.identity(config, table)
        self._look_once(engine, view, table.name)
        batch = engine.read(view, keys, requested_features)
        enforced = config.online_store.enforce_ttl
        return protos.read_rows(batch, views.not_before(table) if enforced else None)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[protos.ReadRow]:
        """Read as :meth:`online_read` does; many keys in another thread."""
        if len(entity_keys) <= INLINE_KEYS:
            return self.online_read(config, table, entity_keys, requested_features)
        return await in_thread(
            "read", self.online_read, config, table, entity_keys, requested_features
        )

    # --- searching

    def retrieve_online_documents(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str],
        embedding: list[float],
        top_k: int,
        distance_metric: str | None = None,
    ) -> list[
        tuple[
            datetime | None,
            EntityKeyProto | None,
            ValueProto | None,
            ValueProto | None,
            ValueProto | None,
        ]
    ]:
        """Find the nearest rows: time, key, the requested feature, the vector, the distance."""
        field = arguments.vector_field(table)
        wanted = requested_features[0] if requested_features else field.name
        found = self._search(
            config,
            table,
            [wanted, field.name],
            top_k,
            embedding,
            distance_metric=distance_metric,
            refuses_others=True,
        )
        null = protos.null_value()
        return [
            (
                time,
                key,
                features.get(wanted, null),
                features.get(field.name, null),
                features.get("distance"),
            )
            for time, key, features in found
        ]

    def retrieve_online_documents_v2(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str],
        embedding: list[float] | None,
        top_k: int,
        distance_metric: str | None = None,
        query_string: str | None = None,
        filters: ComparisonFilter | CompoundFilter | None = None,
        include_feature_view_version_metadata: bool = False,
    ) -> list[protos.Document]:
        """Find the best rows by vector, by text, or by both rankings fused, best first.

        Each row has its features, its ``distance`` where a vector was passed, and its
        ``text_rank`` (BM25, higher is better) where a text was. Filters apply before ranking.
        ``include_feature_view_version_metadata`` is for Feast's own use of the answer.
        """
        found = self._search(
            config,
            table,
            requested_features or [],
            top_k,
            embedding,
            distance_metric=distance_metric,
            query_string=query_string,
            filters=filters,
        )
        return rank_order.for_caller(list(found))

    def _search(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested: list[str],
        top_k: int,
        embedding: Sequence[float] | NDArray[Any] | None,
        *,
        distance_metric: str | None,
        refuses_others: bool = False,
        query_string: str | None = None,
        filters: ComparisonFilter | CompoundFilter | None = None,
    ) -> list[protos.FoundRow]:
        online = config.online_store
        by_vector: dict[str, Any] = {}
        if embedding is not None:
            arguments.check_vector_search(online)
            field = arguments.vector_field(table)
            queries, _ = arguments.query_vectors(embedding, table, field.name)
            by_vector = {
                "feature": field.name,
                "queries": queries,
                "metric": views.metric_of(
                    config, table, field, distance_metric, refuses_others=refuses_others
                ),
            }
        features, join_keys = arguments.split_requested(table, requested)
        engine, declaration = self.engine(config), views.declaration(config, table)
        self._look_once(engine, declaration, table.name)
        batch, _ = engine.search(
            declaration,
            top_k=min(arguments.positive(top_k), online.max_top_k + 1),
            texts=arguments.query_texts(
                config, table, query_string, has_vectors=embedding is not None
            ),
            text_match=online.text_match,
            rrf_k=online.rrf_k,
            vector_weight=online.vector_weight,
            text_weight=online.text_weight,
            filter=None if filters is None else conditions(filters),
            not_before=views.not_before(table) if online.enforce_ttl else None,
            features=features,
            **by_vector,
        )
        if batch.num_rows > online.max_top_k:
            message = (
                f"feature view '{table.name}': a search for {top_k} rows finds more than "
                f"{online.max_top_k}; ask for fewer, or set `max_top_k` in the online_store "
                "section of feature_store.yaml"
            )
            raise InvalidInputError(message, "invalid_argument")
        return protos.found_rows(batch, join_keys)

    # --- infrastructure

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Make the tables what the views say; drop those of deleted views, in every version.

        Text indexes are built where text search was switched on, with a progress bar.
        """
        for table in tables_to_keep:
            views.warn_of_scores(config, table)
        engine = self.engine(config)
        with TextIndexProgress() as progress:
            stale = engine.apply(
                config.project,
                [views.declaration(config, table) for table in tables_to_keep],
                views.dropped(config, tables_to_delete, tables_to_keep),
                progress,
            )
        _messages.values_stale(stale)
        for table in tables_to_keep:
            _messages.table_unfilled(engine, views.identity(config, table), table.name)

    def plan(self, config: RepoConfig, desired_registry_proto: RegistryProto) -> list[InfraObject]:
        """Nothing: Feast plans infrastructure for its own sqlite store alone."""
        return []

    def teardown(
        self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]
    ) -> None:
        """Drop every table of the project, those that Feast does not know of among them."""
        if Path(_path(config)).exists():
            engine = self.engine(config)
            engine.drop_project(config.project)
            engine.close()

    async def initialize(self, config: RepoConfig) -> None:
        """Open the database, so that a server that cannot says so when it starts."""
        view = _core.View(config.project, "")
        await asyncio.to_thread(self.engine(config).read, view, [], [])

    async def close(self) -> None:
        """Close the database; the next call opens it again."""
        # A copy: other tasks may open engines meanwhile.
        for engine in list(self._engines.values()):
            await asyncio.to_thread(engine.close)

    def engine(self, config: RepoConfig) -> _core.Engine:
        """Give the engine over the configured file; opens nothing."""
        online = config.online_store
        path = _path(config)
        # Feast's tests, and some users, change a config that is in use.
        key = (
            path,
            online.durability,
            online.busy_timeout,
            online.search_threads,
            online.index_builds,
            online.file_mode,
        )
        engine = self._engines.get(key)
        if engine is None:
            engine = self._engines.setdefault(key, open_engine(path, online))
        return engine


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


def _path(config: RepoConfig) -> str:
    # An absolute path stays what it is when joined. Not by pathlib, which takes 15 microseconds.
    return os.path.join(config.repo_path or "", config.online_store.path)  # noqa: PTH118
