"""How the store answers ``get_online_features``: by column, in one read."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from feast.infra.online_stores.online_store import OnlineStore

from feast_vector import _messages, views
from feast_vector._executors import in_thread
from feast_vector.features import Plans, Reads

if TYPE_CHECKING:
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.online_response import OnlineResponse
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
    from feast.repo_config import RepoConfig

    from feast_vector import _core
    from feast_vector.features import Answer, EntityRows, FeatureRefs, Group, Request

INLINE_KEYS = 64
"""Reads of up to this many keys are faster than handing them to another thread."""


class ColumnReads(OnlineStore):
    """The reading half of a store that has an engine."""

    # Feast imports six other stores to find out, unless told.
    _versioned_read_supported = True

    # Whether the store is a server's, which answers strangers.
    _is_served = False

    def __init__(self) -> None:
        """Remember no calls yet."""
        self._plans = Plans()
        # Views whose tables were looked at: is another store's beside them, and full?
        self._looked: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without what was remembered."""
        return {**self.__dict__, "_plans": Plans(), "_looked": set()}

    def _seconds(self, config: RepoConfig, *, awaited: bool = False) -> float | None:
        """What a read may take of a core: unbounded in a program of the user's own.

        Feast's servers say that they are one when they start, and await their reads.
        """
        is_bounded = awaited or self._is_served
        return config.online_store.limits.cpu_seconds if is_bounded else None

    def _look_once(self, engine: _core.Engine, view: _core.View, name: str) -> None:
        """Warn with the first read of a view where its rows are in another store's table."""
        if name not in self._looked:
            self._looked.add(name)
            _messages.table_unfilled(engine, view, name)

    def _look_at(self, config: RepoConfig, groups: list[Group]) -> _core.Engine:
        engine = self.engine(config)
        for table, _ in groups:
            if table.name not in self._looked:
                self._look_once(engine, views.identity(config, table), table.name)
        return engine

    def _read_now(self, config: RepoConfig, request: Request) -> Answer:
        return request.read(self._look_at(config, request.groups), self._seconds(config))

    async def _read_awaited(self, config: RepoConfig, request: Request) -> Answer:
        engine = self._look_at(config, request.groups)
        seconds = self._seconds(config, awaited=True)
        if request.keys <= INLINE_KEYS:
            return request.read(engine, seconds)
        return await in_thread("read", request.read, engine, seconds)

    @abstractmethod
    def engine(self, config: RepoConfig) -> _core.Engine:
        """Give the engine over the configured file."""

    def get_online_features(
        self,
        config: RepoConfig,
        features: FeatureRefs,
        entity_rows: EntityRows,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """Answer what a ``FeatureStore`` is asked: to the byte what Feast would, in one read.

        Feast's own way is left to requests that it has to judge or convert; it reads by
        :meth:`_read_features_per_fv`.
        """
        call = (config, features, entity_rows, registry, project, full_feature_names)
        request = self._plans.request(*call)
        if request is None:
            return super().get_online_features(*call, include_feature_view_version_metadata)
        answer = self._read_now(config, request)
        return request.response(answer, include_feature_view_version_metadata)

    async def get_online_features_async(
        self,
        config: RepoConfig,
        features: FeatureRefs,
        entity_rows: EntityRows,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """Answer as :meth:`get_online_features` does; many keys are read in another thread."""
        call = (config, features, entity_rows, registry, project, full_feature_names)
        request = self._plans.request(*call)
        if request is None:
            return await super().get_online_features_async(
                *call, include_feature_view_version_metadata
            )
        answer = await self._read_awaited(config, request)
        return request.response(answer, include_feature_view_version_metadata)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[Group],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Answer by column, all views as of one moment, what Feast has prepared."""
        reads = Reads(
            config, grouped_refs, join_key_values, entity_name_to_join_key_map, full_feature_names
        )
        request = reads.of_protos(join_key_values)
        if request is None:
            super()._read_features_per_fv(
                config,
                grouped_refs,
                join_key_values,
                entity_name_to_join_key_map,
                online_features_response,
                full_feature_names,
                include_feature_view_version_metadata,
            )
            return
        answer = self._read_now(config, request)
        request.merge(answer, online_features_response, include_feature_view_version_metadata)

    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: list[Group],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Answer as :meth:`_read_features_per_fv` does; many keys are read in another thread."""
        reads = Reads(
            config, grouped_refs, join_key_values, entity_name_to_join_key_map, full_feature_names
        )
        request = reads.of_protos(join_key_values)
        if request is None:
            await super()._read_features_per_fv_async(
                config,
                grouped_refs,
                join_key_values,
                entity_name_to_join_key_map,
                online_features_response,
                full_feature_names,
                include_feature_view_version_metadata,
            )
            return
        answer = await self._read_awaited(config, request)
        request.merge(answer, online_features_response, include_feature_view_version_metadata)
