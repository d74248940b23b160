"""Feast's feature views in the core's terms."""

from __future__ import annotations

from feast import FeatureView
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.repo_config import RepoConfig

from feast_vector import _core


def identity(config: RepoConfig, table: FeatureView) -> _core.View:
    """Which view, without what it holds."""
    return _core.View(config.project, table.name, _version(config, table))


def declaration(config: RepoConfig, table: FeatureView) -> _core.View:
    """The whole view, as the core wants it for writing."""
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


def _version(config: RepoConfig, table: FeatureView) -> int:
    name = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
    suffix = name.removeprefix(f"{table.name}_v")
    return 0 if name == table.name else int(suffix)
