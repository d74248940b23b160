"""The online store that Feast sees: arguments in, answers out, all work in the native core.

Feast looks for the configuration's class in the store's own module, which has it of `config`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feast import Entity, FeatureView
from feast.infra.infra_object import InfraObject
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import RepoConfig

from feast_vector import _core, _messages, _stream, arguments, protos, rank_order, views
from feast_vector._engines import open_engine
from feast_vector._executors import in_thread
from feast_vector._progress import TextIndexProgress
from feast_vector.column_reads import INLINE_KEYS, ColumnReads
from feast_vector.config import VectorOnlineStoreConfig, database_path
from feast_vector.errors import InvalidInputError
from feast_vector.filters import conditions

if TYPE_CHECKING:
    from feast import FeatureStore
    from feast.filter_models import ComparisonFilter, CompoundFilter
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
    from feast.protos.feast.types.Value_pb2 import Value as ValueProto
    from numpy.typing import NDArray

__all__ = ["VectorOnlineStore", "VectorOnlineStoreConfig", "store_of"]


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
        seconds = self._seconds(config)
        return self._read(config, table, entity_keys, requested_features, seconds)

    def _read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None,
        seconds: float | None,
    ) -> list[protos.ReadRow]:
        keys = protos.serialize_keys(entity_keys)
        engine, view = self.engine(config), views.identity(config, table)
        self._look_once(engine, view, table.name)
        batch = engine.read(view, keys, requested_features, cpu_seconds=seconds)
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
        call = (config, table, entity_keys, requested_features, self._seconds(config, awaited=True))
        if len(entity_keys) <= INLINE_KEYS:
            return self._read(*call)
        return await in_thread("read", self._read, *call)

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
            filter=None if filters is None else conditions(filters, online.limits),
            not_before=views.not_before(table) if online.enforce_ttl else None,
            features=features,
            cpu_seconds=online.limits.cpu_seconds,
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
        if Path(database_path(config)).exists():
            engine = self.engine(config)
            engine.drop_project(config.project)
            engine.close()

    async def initialize(self, config: RepoConfig) -> None:
        """Open the database, so that a server that cannot says so when it starts."""
        self._is_served = True
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
        path = database_path(config)
        # Feast's tests, and some users, change a config that is in use.
        key = (
            path,
            online.durability,
            online.busy_timeout,
            online.search_threads,
            online.index_builds,
            online.file_mode,
            online.limits,
        )
        engine = self._engines.get(key)
        if engine is None:
            engine = self._engines.setdefault(key, open_engine(path, online))
        return engine


def store_of(store: FeatureStore) -> VectorOnlineStore:
    """The online store of a feature store, if it is ours."""
    found = getattr(store._get_provider(), "online_store", None)  # noqa: SLF001
    if not isinstance(found, VectorOnlineStore):
        message = (
            f"the online store of this FeatureStore is {type(found).__name__}, not feast-vector's; "
            "set `type: vector` in the online_store section of feature_store.yaml"
        )
        raise InvalidInputError(message, "invalid_argument")
    return found
