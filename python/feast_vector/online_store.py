"""The online store that Feast sees: arguments in, answers out, all work in the native core.

Feast looks for the configuration in the store's own module, so both are here.
"""

from __future__ import annotations

import asyncio
import operator
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from feast import Entity, FeatureView
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.infra_object import InfraObject
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.labeling.label_view import LabelView
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import Field, StrictBool, StrictStr, field_validator

from feast_vector import _core, protos, rank_order
from feast_vector._engines import open_engine
from feast_vector.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from feast.filter_models import ComparisonFilter, CompoundFilter
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
    from feast.protos.feast.types.Value_pb2 import Value as ValueProto
    from numpy.typing import NDArray

# Reads of up to this many keys are faster than handing them to another thread.
_INLINE_KEYS = 64


class VectorOnlineStoreConfig(FeastConfigBaseModel):
    """The ``online_store`` section of ``feature_store.yaml``. Unknown keys are refused."""

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
    """Metric of vector fields that declare none: ``cosine``, ``L2`` or ``inner_product``."""

    write_conflict: Literal["newest_event_wins", "last_write_wins"] = "newest_event_wins"
    """What a write does to a row with a later event timestamp."""

    key_ttl_seconds: int | None = Field(default=None, gt=0)
    """Seconds after its last write when a row vanishes; never, if unset."""

    durability: Literal["full", "normal", "off"] = "full"
    """``full``: a written batch survives a power cut; ``normal``: a killed process; ``off``: that
    too, but a power cut may damage the file."""

    busy_timeout: float = Field(default=30.0, ge=0, le=86_400)
    """Seconds that a writer waits for other writers."""

    search_threads: int = Field(default=0, ge=0, le=1024)
    """The most threads that one search uses; 0 for as many as there are cores."""

    @field_validator("similarity")
    @classmethod
    def _known_metric(cls, value: str | None) -> str | None:
        if value is not None:
            _core.normalize_metric(value)
        return value


class VectorOnlineStore(OnlineStore):
    """Features as one typed row per entity in SQLite; embeddings searched by SIMD kernels."""

    # Feast imports six other stores to find out, unless told.
    _versioned_read_supported = True

    def __init__(self) -> None:
        """Make a store; nothing is opened before its first use."""
        self._engines: dict[tuple[object, ...], _core.Engine] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without what belongs to this process."""
        return {**self.__dict__, "_engines": {}}

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
        stream = protos.WriteStream(data)
        try:
            self._engine(config).write(
                _view(config, table),
                stream,
                newest_event_wins=_newest_event_wins(config, table),
                ttl_seconds=config.online_store.key_ttl_seconds,
            )
        except Exception:
            if stream.error is not None:
                raise stream.error from None
            raise
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
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

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
        batch = self._engine(config).read(_identity(config, table), keys, requested_features)
        return protos.read_rows(batch)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[protos.ReadRow]:
        """Read as :meth:`online_read` does; many keys in another thread."""
        if len(entity_keys) <= _INLINE_KEYS:
            return self.online_read(config, table, entity_keys, requested_features)
        return await asyncio.to_thread(
            self.online_read, config, table, entity_keys, requested_features
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
        field = _vector_field(table)
        wanted = requested_features[0] if requested_features else field.name
        found = self._search(config, table, [wanted, field.name], embedding, top_k, distance_metric)
        null = protos.null_value()
        return [
            (
                time,
                key,
                features.get(wanted, null),
                features.get(field.name, null),
                protos.distance_value(distance),
            )
            for time, key, distance, features in found
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
        include_feature_view_version_metadata: bool = False,  # noqa: FBT001, FBT002
    ) -> list[protos.Document]:
        """Find the nearest rows, best first, each with its features and its ``distance``.

        ``include_feature_view_version_metadata`` is for Feast's own use of the answer.
        """
        if query_string is not None or embedding is None:
            message = "feast-vector searches by vector: pass `query`; text search is not built yet"
            raise InvalidInputError(message, "unsupported")
        if filters is not None:
            message = "feast-vector does not filter searches yet"
            raise InvalidInputError(message, "unsupported")
        found = self._search(
            config, table, requested_features or [], embedding, top_k, distance_metric
        )
        return rank_order.for_caller(
            [
                (time, key, {**features, "distance": protos.distance_value(distance)})
                for time, key, distance, features in found
            ]
        )

    def _search(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested: list[str],
        embedding: Sequence[float] | NDArray[Any],
        top_k: int,
        distance_metric: str | None,
    ) -> list[protos.FoundRow]:
        if not config.online_store.vector_enabled:
            message = (
                "vector search is off; set `vector_enabled: true` in the online_store section of "
                "feature_store.yaml"
            )
            raise InvalidInputError(message, "vector_disabled")
        field = _vector_field(table)
        features, join_keys = _split_requested(table, requested)
        batch = self._engine(config).search(
            _identity(config, table),
            field.name,
            _query_vector(embedding, table, field.name),
            metric=_metric(config, field, distance_metric),
            top_k=_positive(top_k),
            features=features,
        )
        return protos.found_rows(batch, join_keys)

    # --- infrastructure

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,  # noqa: FBT001
    ) -> None:
        """Make the tables what the views say; drop those of deleted views, in every version."""
        self._engine(config).apply(
            config.project,
            [_view(config, table) for table in tables_to_keep],
            [table.name for table in tables_to_delete],
        )

    def plan(
        self, config: RepoConfig, desired_registry_proto: RegistryProto
    ) -> list[InfraObject]:
        """Nothing: Feast plans infrastructure for its own sqlite store alone."""
        return []

    def teardown(
        self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]
    ) -> None:
        """Drop every table of the project, those that Feast does not know of among them."""
        if Path(_path(config)).exists():
            engine = self._engine(config)
            engine.drop_project(config.project)
            engine.close()

    async def initialize(self, config: RepoConfig) -> None:
        """Open the database, so that a server that cannot says so when it starts."""
        view = _core.View(config.project, "")
        await asyncio.to_thread(self._engine(config).read, view, [], [])

    async def close(self) -> None:
        """Close the database; the next call opens it again."""
        for engine in self._engines.values():
            await asyncio.to_thread(engine.close)

    def _engine(self, config: RepoConfig) -> _core.Engine:
        online = config.online_store
        path = _path(config)
        # Feast's tests, and some users, change a config that is in use.
        key = (path, online.durability, online.busy_timeout, online.search_threads)
        engine = self._engines.get(key)
        if engine is None:
            engine = self._engines.setdefault(key, open_engine(path, online))
        return engine


def _newest_event_wins(config: RepoConfig, table: FeatureView) -> bool:
    # Of label views Feast promises that the online store keeps the last write.
    by_config = config.online_store.write_conflict == "newest_event_wins"
    return by_config and not isinstance(table, LabelView)


def _path(config: RepoConfig) -> str:
    path = config.online_store.path
    if config.repo_path is not None and not os.path.isabs(path):
        return str(Path(config.repo_path) / path)
    return str(path)


def _version(config: RepoConfig, table: FeatureView) -> int:
    name = compute_versioned_name(
        table, config.registry.enable_online_feature_view_versioning
    )
    suffix = name.removeprefix(f"{table.name}_v")
    return 0 if name == table.name else int(suffix)


def _identity(config: RepoConfig, table: FeatureView) -> _core.View:
    return _core.View(config.project, table.name, _version(config, table))


def _view(config: RepoConfig, table: FeatureView) -> _core.View:
    return _core.View(
        config.project,
        table.name,
        _version(config, table),
        join_keys=[
            (field.name, field.dtype.to_value_type().name)
            for field in getattr(table, "entity_columns", [])
            if field.name != DUMMY_ENTITY_ID
        ],
        features=[
            (field.name, field.dtype.to_value_type().name, field.vector_length or None)
            for field in table.features
        ],
    )


def _vector_field(table: FeatureView) -> Any:  # noqa: ANN401
    fields = [field for field in table.features if field.vector_index]
    if len(fields) == 1:
        return fields[0]
    if fields:
        names = ", ".join(field.name for field in fields)
        message = (
            f"feature view '{table.name}' has several vector fields ({names}), and Feast searches "
            "views with one; leave `vector_index=True` on one of them and run `feast apply`"
        )
    else:
        message = (
            f"feature view '{table.name}' has no vector field; declare one with "
            "`Field(..., dtype=Array(Float32), vector_index=True)` and run `feast apply`"
        )
    raise InvalidInputError(message, "no_vector_field")


def _split_requested(table: FeatureView, requested: list[str]) -> tuple[list[str], list[str]]:
    """The requested names that are features, and those that are join keys."""
    features = {field.name for field in table.features}
    join_keys = {field.name for field in getattr(table, "entity_columns", [])}
    unknown = [name for name in requested if name not in features | join_keys]
    if unknown:
        message = (
            f"feature view '{table.name}' has no feature '{unknown[0]}'; its features are: "
            f"{', '.join(sorted(features))}"
        )
        raise NotFoundError(message, "unknown_feature")
    return (
        [name for name in requested if name in features],
        [name for name in requested if name not in features],
    )


def _query_vector(
    embedding: Sequence[float] | NDArray[Any], table: FeatureView, field: str
) -> NDArray[np.float64]:
    place = f"feature view '{table.name}', feature '{field}'"
    try:
        vector = np.asarray(embedding, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        message = f"{place}: the query vector has to be a list or array of numbers ({cause})"
        raise InvalidInputError(message, "invalid_query") from cause
    if vector.ndim != 1:
        message = (
            f"{place}: the query vector has the shape {vector.shape}; it has to have one dimension"
        )
        raise InvalidInputError(message, "invalid_query")
    return vector


def _positive(top_k: int) -> int:
    try:
        number = operator.index(top_k)
    except TypeError:
        number = 0
    if number < 1 or isinstance(top_k, bool):
        message = f"top_k has to be a whole number of at least 1, not {top_k!r}"
        raise InvalidInputError(message, "invalid_argument")
    return min(number, 2**32)


def _metric(config: RepoConfig, field: Any, asked: str | None) -> str:  # noqa: ANN401
    """The field's metric, else the configured one, else what the caller asks for.

    Feast's public method asks for "L2" where its caller says nothing, so that word alone does not
    outweigh the configuration's default; any other does.
    """
    online = config.online_store
    if field.vector_search_metric:
        return str(field.vector_search_metric)
    configured = "similarity" in online.model_fields_set
    if asked and not configured and _core.normalize_metric(asked) != "L2":
        return asked
    return online.similarity or asked or "L2"
