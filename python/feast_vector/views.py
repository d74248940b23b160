"""Feast's feature views in the core's terms."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

from feast import FeatureView
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.labeling.label_view import LabelView
from feast.repo_config import RepoConfig
from feast.types import String

from feast_vector import _core
from feast_vector.errors import InvalidInputError

TEXT_TAG = "feast_vector.text_features"
"""The tag of a view that names the features whose texts are searched, with commas between them."""

INDEX_TYPE_TAG = "feast_vector.index_type"
"""The tag of a field that says how its vectors are indexed: ``auto``, ``flat`` or ``ivf``."""

RECALL_TAG = "feast_vector.target_recall"
"""The tag of a field that says what share of the true nearest rows a search is to find."""

INDEX_TYPES = ("auto", "flat", "ivf")

LEAST_RECALL = 0.5

# Names that `feast.utils._distance_to_score` has for the inner product.
_FEASTS_PRODUCTS = ("inner_product", "ip", "dot")

# The last declaration of each view, by project, name and version, and what it was made of.
_declarations: dict[tuple[str, str, int], tuple[list[object], _core.View]] = {}


def identity(config: RepoConfig, table: FeatureView) -> _core.View:
    """Which view, without what it holds."""
    return _core.View(config.project, table.name, _version(config, table))


def declaration(config: RepoConfig, table: FeatureView) -> _core.View:
    """The whole view, as the core wants it for writing."""
    version, facts = _version(config, table), _facts(config, table)
    place = (config.project, table.name, version)
    known = _declarations.get(place)
    # Views are made anew and changed in place, so that only what they say tells them apart.
    if known is not None and known[0] == facts:
        return known[1]
    declared = _core.View(
        *place,
        join_keys=[
            (field.name, field.dtype.to_value_type().name)
            for field in getattr(table, "entity_columns", [])
            if field.name != DUMMY_ENTITY_ID
        ],
        features=[
            (field.name, field.dtype.to_value_type().name, field.vector_length or None)
            for field in table.features
        ],
        text_features=text_features(config, table),
        vector_indexes=vector_indexes(config, table),
    )
    _declarations[place] = facts, declared
    return declared


def _facts(config: RepoConfig, table: FeatureView) -> list[object]:
    """All that a declaration is made of."""
    online = config.online_store
    facts: list[object] = [
        online.vector_enabled,
        online.index_type,
        online.target_recall,
        online.similarity if "similarity" in online.model_fields_set else None,
        online.text_search_enabled,
        online.text_features and tuple(online.text_features),
        (getattr(table, "tags", None) or {}).get(TEXT_TAG),
    ]
    for field in getattr(table, "entity_columns", []):
        facts += field.name, field.dtype
    for field in table.features:
        facts += field.name, field.dtype, field.vector_length, field.vector_index
        if field.vector_index:
            tags = field.tags or {}
            facts += field.vector_search_metric, tags.get(INDEX_TYPE_TAG), tags.get(RECALL_TAG)
    return facts


def vector_indexes(config: RepoConfig, table: FeatureView) -> list[tuple[str, str, str, float]]:
    """The features whose vectors are searched: name, metric, index type and recall.

    A field's tags outweigh the configuration.
    """
    online = config.online_store
    indexes = []
    for field in table.features:
        if not field.vector_index or not online.vector_enabled:
            continue
        tags = field.tags or {}
        index_type = tags.get(INDEX_TYPE_TAG, online.index_type)
        recall = tags.get(RECALL_TAG, online.target_recall)
        place = f"feature view '{table.name}', feature '{field.name}'"
        if index_type not in INDEX_TYPES:
            message = (
                f"{place}, tag '{INDEX_TYPE_TAG}': '{index_type}' is none of "
                f"{', '.join(INDEX_TYPES)}"
            )
            raise InvalidInputError(message, "invalid_argument")
        try:
            recall = float(recall)
        except ValueError:
            recall = 0.0
        if not LEAST_RECALL <= recall <= 1:
            message = (
                f"{place}, tag '{RECALL_TAG}': '{tags.get(RECALL_TAG)}' is no number from "
                f"{LEAST_RECALL} to 1"
            )
            raise InvalidInputError(message, "invalid_argument")
        metric = metric_of(config, table, field)
        indexes.append((field.name, metric, index_type, recall))
    return indexes


def metric_of(
    config: RepoConfig,
    table: FeatureView,
    field: Any,  # noqa: ANN401
    asked: str | None = None,
    *,
    refuses_others: bool = False,
) -> str:
    """The metric that the field's vectors are indexed for and searched by.

    It is the field's ``vector_search_metric``, else ``similarity`` where that is set, else what the
    caller asks for, else cosine. Feast's methods ask for "L2" where their caller says nothing, so
    that word alone asks for nothing.

    Raises:
        InvalidInputError: A metric that there is none of; or, if it ``refuses_others``, one asked
            for that is not the declared one.
    """
    online = config.online_store
    place = f"feature view '{table.name}', feature '{field.name}'"
    configured = online.similarity if "similarity" in online.model_fields_set else None
    declared = named_metric(field.vector_search_metric or configured or None, place)
    wanted = named_metric(asked, place)
    if wanted == "L2":
        wanted = None
    if refuses_others and declared and wanted and wanted != declared:
        source = "the field's vector_search_metric" if field.vector_search_metric else "similarity"
        message = (
            f"{place}: the metric asked for is '{asked}', but {source} is '{declared}'; ask for "
            f"that, or declare Field(..., vector_search_metric={wanted!r}) and run `feast apply`"
        )
        raise InvalidInputError(message, "invalid_argument")
    return declared or wanted or "cosine"


def named_metric(name: str | None, place: str) -> str | None:
    """The metric by that name, in one spelling."""
    if name is None:
        return None
    if not isinstance(name, str):
        message = f"{place}: a metric is named by a string, not {name!r}"
        raise InvalidInputError(message, "invalid_argument")
    try:
        return _core.normalize_metric(name)
    except InvalidInputError as error:
        message = f"{place}: {error}"
        raise InvalidInputError(message, error.kind) from None


def text_features(config: RepoConfig, table: FeatureView) -> list[str]:
    """The features whose texts are searched; none, where text search is off.

    The view's tag says which, else the configuration, else they are all of type String.
    """
    online = config.online_store
    if not online.text_search_enabled:
        return []
    texts = [field.name for field in table.features if field.dtype == String]
    tag = (getattr(table, "tags", None) or {}).get(TEXT_TAG)
    if tag is not None:
        chosen = [name.strip() for name in tag.split(",") if name.strip()]
        for name in chosen:
            if name not in texts:
                message = (
                    f"feature view '{table.name}', tag '{TEXT_TAG}': there is no feature '{name}' "
                    f"of type String; there are: {', '.join(texts) or 'none'}"
                )
                raise InvalidInputError(message, "invalid_argument")
        return chosen
    if online.text_features is not None:
        return [
            name for name in texts if {name, f"{table.name}:{name}"} & set(online.text_features)
        ]
    return texts


def warn_of_scores(config: RepoConfig, table: FeatureView) -> None:
    """Say so where the scores of Feast's OpenAI endpoint would rank wrongly.

    Feast makes them from distances by the field's declared metric alone, and takes a metric that
    it does not know, or none, for L2: of inner products that is no ranking.
    """
    for field in table.features:
        if not field.vector_index:
            continue
        is_product = metric_of(config, table, field) == "inner_product"
        if is_product and (field.vector_search_metric or "").lower() not in _FEASTS_PRODUCTS:
            warnings.warn(
                f"feature view '{table.name}', feature '{field.name}': searches rank by inner "
                "product, but the scores of Feast's OpenAI endpoint will not, because Feast reads "
                "the metric from the field and knows it as 'inner_product'; declare "
                'Field(..., vector_search_metric="inner_product")',
                UserWarning,
                stacklevel=3,
            )


def not_before(table: FeatureView) -> int | None:
    """The event time, in microseconds since 1970, before which rows are past the view's ttl."""
    ttl = getattr(table, "ttl", None)
    seconds = ttl.total_seconds() if ttl else 0
    return time.time_ns() // 1000 - int(seconds * 1e6) if seconds > 0 else None


def dropped(
    config: RepoConfig, delete: Sequence[FeatureView], keep: Sequence[FeatureView]
) -> list[tuple[str, int | None]]:
    """Names whose tables are dropped, each with the version; None for all of them.

    Of a name that is kept as well, in another version, only the deleted version goes.
    """
    kept = {table.name: set[int]() for table in keep}
    for table in keep:
        kept[table.name].add(_version(config, table))
    gone: list[tuple[str, int | None]] = []
    for table in delete:
        if table.name not in kept:
            gone.append((table.name, None))
        elif (version := _version(config, table)) not in kept[table.name]:
            gone.append((table.name, version))
    return gone


def write_options(config: RepoConfig, table: FeatureView) -> dict[str, Any]:
    """How rows of the view are written."""
    # Of label views Feast promises that the online store keeps the last write.
    by_config = config.online_store.write_conflict == "newest_event_wins"
    return {
        "newest_event_wins": by_config and not isinstance(table, LabelView),
        "ttl_seconds": config.online_store.key_ttl_seconds,
    }


def _version(config: RepoConfig, table: FeatureView) -> int:
    name = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
    suffix = name.removeprefix(f"{table.name}_v")
    return 0 if name == table.name else int(suffix)
