"""Reads for ``get_online_features``: by column, all feature views in one call of the core.

Feast's own way builds a dict for each row and a proto for each value, and reads view after view.
Here the core answers with one serialized response, which is merged into Feast's.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias

from feast import utils

from feast_vector import protos, views

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.repo_config import RepoConfig

    from feast_vector import _core

Group: TypeAlias = "tuple[FeatureView, list[str]]"
"""A feature view, and the features that are asked of it."""

Response: TypeAlias = Any
"""A ``GetOnlineFeaturesResponse``."""


class Request:
    """What one call of ``get_online_features`` asks.

    Attributes:
        keys: How many entities are looked up, over all views.
    """

    def __init__(
        self,
        config: RepoConfig,
        groups: list[Group],
        join_key_values: dict[str, Any],
        full_names: bool,  # noqa: FBT001
    ) -> None:
        """Take what Feast passes."""
        self.keys = 0
        self._config = config
        self._groups = groups
        self._join_key_values = join_key_values
        self._full_names = full_names
        self._views: list[_core.View] = []
        self._requests: list[tuple[list[tuple[str, bytes]], list[str], list[str]]] = []
        self._rows: list[int] = []

    def collect(self, join_key_of_entity: dict[str, str]) -> bool:
        """Put the request into the core's terms; false where Feast's own way has to judge it.

        That is where join keys are missing or differ in number, of which Feast says what it
        thinks, or where a feature is named twice.
        """
        serialized: dict[int, bytes] = {}
        for table, features in self._groups:
            columns = utils._get_table_entity_values(  # noqa: SLF001
                table, join_key_of_entity, self._join_key_values
            )
            lengths = {len(column) for column in columns.values()}
            if len(lengths) != 1 or lengths == {0} or len(set(features)) < len(features):
                return False
            for column in columns.values():
                if id(column) not in serialized:
                    serialized[id(column)] = protos.serialize_column(column)
            keys = [(name, serialized[id(column)]) for name, column in columns.items()]
            prefix = f"{table.projection.name_to_use()}__" if self._full_names else ""
            self._views.append(views.identity(self._config, table))
            self._requests.append((keys, features, [f"{prefix}{name}" for name in features]))
            (rows,) = lengths
            self._rows.append(rows)
            self.keys += rows
        return True

    def read(self, engine: _core.Engine) -> tuple[bytes, list[int]]:
        """Read, all views as of one moment."""
        return engine.features(self._views, self._requests)

    def merge(
        self,
        answer: tuple[bytes, list[int]],
        response: Response,
        with_versions: bool,  # noqa: FBT001
    ) -> None:
        """Put the answer into Feast's response, and tell Feast's metrics."""
        message, present = answer
        response.MergeFromString(message)
        if with_versions:
            described = {view.name for view in response.metadata.feature_view_metadata}
            for table, _ in self._groups:
                name = table.projection.name_alias or table.projection.name
                if name not in described:
                    described.add(name)
                    version = getattr(table, "current_version_number", 0) or 0
                    response.metadata.feature_view_metadata.add(name=name, version=version)
        with contextlib.suppress(Exception):  # As Feast does: no read fails for its metrics.
            from feast.metrics import track_feature_statuses

            for (table, features), rows, found in zip(
                self._groups, self._rows, present, strict=True
            ):
                track_feature_statuses(table.name, found, len(features) * rows - found)
