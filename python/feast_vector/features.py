"""Reads for ``get_online_features``: by column, all feature views in one call of the core.

Feast's own way makes a proto of each entity's value, a dict of each row and a proto of each value
in it, and reads view after view. Here entities go to the core as they are, and it answers with one
serialized response.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from feast import FeatureService, utils
from feast.infra.online_stores.online_store import OnlineStore
from feast.online_response import OnlineResponse

from feast_vector import _core, protos, views

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
    from feast.repo_config import RepoConfig
    from feast.value_type import ValueType

Group: TypeAlias = "tuple[FeatureView, list[str]]"
"""A feature view, and the features that are asked of it."""

FeatureRefs: TypeAlias = "list[str] | FeatureService"
"""What Feast is asked for."""

EntityRows: TypeAlias = "list[dict[str, Any]] | Mapping[str, Any]"
"""The entities that Feast is asked about: a dict for each, or a column for each join key."""

Answer: TypeAlias = tuple[bytes, list[int]]
"""A serialized response, and of each view how many values are there."""

_MOST_PLANS = 256


class Reads:
    """What is read for a call of ``get_online_features``, whichever its entities are.

    Attributes:
        config: Feast's configuration.
        groups: The views, and the features of each.
        columns: Names of the columns that the entities' values come in.
        names: The features' names in the response.
        is_usual: Whether the core may answer: each view has join keys among the columns, and
            names each feature once.
    """

    def __init__(
        self,
        config: RepoConfig,
        groups: list[Group],
        columns: Iterable[str],
        join_key_of_entity: dict[str, str],
        full_names: bool,  # noqa: FBT001
    ) -> None:
        """Put the reads into the core's terms; ``columns`` name the entities' values."""
        self.config = config
        self.groups = groups
        self.columns = list(columns)
        self.names: list[str] = []
        self.is_usual = bool(groups)
        places = {name: place for place, name in enumerate(self.columns)}
        reads = []
        for table, features in groups:
            used = utils._get_table_entity_values(  # noqa: SLF001
                table, join_key_of_entity, places
            )
            self.is_usual &= bool(used) and len(set(features)) == len(features)
            prefix = f"{table.projection.name_to_use()}__" if full_names else ""
            names = [f"{prefix}{name}" for name in features]
            self.names += names
            reads.append((views.identity(config, table), list(used.items()), features, names))
        self.native = _core.FeatureReads(self.columns, reads)

    def of_protos(self, values: Mapping[str, Sequence[Any]]) -> Request | None:
        """The request for entities that Feast has converted; none where Feast has to judge it.

        That is where join keys are missing or differ in number, of which Feast says what it
        thinks, or where a feature is named twice.
        """
        lengths = {len(values[name]) for name in self.columns}
        if not self.is_usual or len(lengths) != 1 or lengths == {0}:
            return None
        columns = [protos.serialize_column(values[name]) for name in self.columns]
        return Request(self, columns, lengths.pop())


class Request:
    """Reads of known entities.

    Attributes:
        keys: How many entities are looked up, over all views.
        groups: The views, and the features of each.
    """

    # Vectors of the answer before those of features.
    _leading = 0

    def __init__(self, reads: Reads, columns: list[bytes], rows: int) -> None:
        """Take a serialized column for each of the reads', of so many rows."""
        self.keys = rows * len(reads.groups)
        self.groups = reads.groups
        self._reads = reads
        self._columns = columns
        self._rows = rows

    def read(self, engine: _core.Engine, seconds: float | None) -> Answer:
        """Read, all views as of one moment, in so many seconds of a core at most."""
        return engine.features(self._reads.native, self._columns, cpu_seconds=seconds)

    def merge(
        self,
        answer: Answer,
        response: GetOnlineFeaturesResponse,
        with_versions: bool,  # noqa: FBT001
    ) -> None:
        """Put the answer into Feast's response, and tell Feast's metrics."""
        message, present = answer
        before = len(response.results)
        response.MergeFromString(message)
        if self._reads.config.online_store.enforce_ttl:
            limits = [(views.not_before(table), len(names)) for table, names in self._reads.groups]
            protos.expire(response, before + self._leading, limits, present)
        if with_versions:
            described = {view.name for view in response.metadata.feature_view_metadata}
            for table, _ in self._reads.groups:
                name = table.projection.name_alias or table.projection.name
                if name not in described:
                    described.add(name)
                    version = getattr(table, "current_version_number", 0) or 0
                    response.metadata.feature_view_metadata.add(name=name, version=version)
        with contextlib.suppress(Exception):  # As Feast does: no read fails for its metrics.
            from feast.metrics import track_feature_statuses

            for (table, features), found in zip(self._reads.groups, present, strict=True):
                track_feature_statuses(table.name, found, len(features) * self._rows - found)


class WholeRequest(Request):
    """A call of ``get_online_features`` that is answered without any of Feast's own way."""

    def __init__(
        self, reads: Reads, columns: list[bytes], rows: int, feature_types: dict[str, ValueType]
    ) -> None:
        """Take what :class:`Request` does, and the types of the features that are asked for."""
        super().__init__(reads, columns, rows)
        self._leading = len(columns)
        self._feature_types = feature_types

    def read(self, engine: _core.Engine, seconds: float | None) -> Answer:
        """Read as other requests do; the answer has the entities too."""
        started = time.monotonic()
        answer = engine.features(self._reads.native, self._columns, self._rows, cpu_seconds=seconds)
        with contextlib.suppress(ImportError):  # Feast's metrics need a package of their own.
            from feast import metrics

            if metrics._config.online_features:  # noqa: SLF001
                metrics.track_online_store_read(time.monotonic() - started)
        return answer

    def response(self, answer: Answer, with_versions: bool) -> OnlineResponse:  # noqa: FBT001
        """Give Feast's response."""
        response = protos.empty_response()
        self.merge(answer, response, with_versions)
        return OnlineResponse(response, feature_types=self._feature_types)


class Plans:
    """What is known of calls that came before: only their entities differ."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._known: dict[tuple[object, ...], _Plan] = {}

    def request(  # noqa: PLR0913, PLR0917  # what Feast passes
        self,
        config: RepoConfig,
        features: FeatureRefs,
        entity_rows: EntityRows,
        registry: BaseRegistry,
        project: str,
        full_names: bool,  # noqa: FBT001
    ) -> WholeRequest | None:
        """The request that a call is; none, if Feast has to judge it or to convert its values.

        Raises:
            Exception: Whatever Feast says of features that are not there.
        """
        columns = _columns(entity_rows)
        if isinstance(features, FeatureService):
            refs: object = features.name
            is_precomputed = features.precompute_online
        else:
            refs, is_precomputed = tuple(features), False
        if columns is None or is_precomputed:
            return None
        # Feast remembers what it has resolved until it reads the registry again.
        context = utils._get_cached_request_context(  # noqa: SLF001
            registry, project, features, full_names
        )
        key = (refs, project, full_names, id(config), config.project, tuple(columns))
        plan = self._known.get(key)
        if plan is None or plan.context is not context:
            if len(self._known) >= _MOST_PLANS:
                self._known.clear()
            plan = self._known[key] = _Plan(context, config, list(columns), full_names)
        return plan.request(columns)


class _Plan:
    """A call that Feast has resolved, without its entities.

    Attributes:
        context: What Feast has resolved it to; another object after the registry was read again.
    """

    def __init__(
        self,
        context: tuple[Any, ...],
        config: RepoConfig,
        columns: list[str],
        full_names: bool,  # noqa: FBT001
    ) -> None:
        (_, on_demand, join_key_of_entity, types, join_keys, groups, names, data, entityless) = (
            context
        )
        self.context = context
        # Held, so that its id, by which the plan is remembered, stays its own.
        self._config = config
        self._reads: Reads | None = None
        if on_demand or data or entityless or not join_keys.issuperset(columns):
            return
        reads = Reads(config, groups, columns, join_key_of_entity, full_names)
        if reads.is_usual and names.issuperset(reads.names):
            self._reads = reads
        self._types = [types[name].name if name in types else "" for name in columns]
        self._feature_types = OnlineStore._build_feature_types(groups)  # noqa: SLF001

    def request(self, columns: Mapping[str, list[Any]]) -> WholeRequest | None:
        if self._reads is None:
            return None
        serialized = []
        for kind, values in zip(self._types, columns.values(), strict=True):
            column = _core.serialize_entities(kind, values)
            if column is None:
                return None
            serialized.append(column)
        return WholeRequest(self._reads, serialized, len(values), self._feature_types)


def _columns(entity_rows: EntityRows) -> dict[str, list[Any]] | None:
    """Entities by column, lists of the same length; none, if they are not plainly that."""
    if isinstance(entity_rows, list):
        try:
            columns = {name: [row[name] for row in entity_rows] for name in entity_rows[0]}
        except (IndexError, KeyError, TypeError):
            return None
        is_plain = all(len(row) == len(columns) for row in entity_rows)
    else:
        columns = dict(entity_rows)
        is_plain = all(type(column) is list for column in columns.values())
    lengths = {len(column) for column in columns.values()} if is_plain else set()
    return columns if len(lengths) == 1 and lengths != {0} else None
