"""What callers of a search pass, checked, with errors that say what to do."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from feast import FeatureView
from feast.repo_config import RepoConfig
from numpy.typing import NDArray

from feast_vector import _core
from feast_vector.errors import InvalidInputError, NotFoundError


def vector_field(table: FeatureView) -> Any:  # noqa: ANN401
    """The one field that Feast searches."""
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
    raise InvalidInputError(message, "not_a_vector")


def split_requested(table: FeatureView, requested: list[str]) -> tuple[list[str], list[str]]:
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


def query_vector(
    embedding: Sequence[float] | NDArray[Any], table: FeatureView, field: str
) -> NDArray[np.float64]:
    """The query as an array of shape ``(d,)``."""
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


def positive(top_k: int) -> int:
    """``top_k``, if it is one."""
    try:
        number = operator.index(top_k)
    except TypeError:
        number = 0
    if number < 1 or isinstance(top_k, bool):
        message = f"top_k has to be a whole number of at least 1, not {top_k!r}"
        raise InvalidInputError(message, "invalid_argument")
    return min(number, 2**32)


def metric_for(config: RepoConfig, field: Any, asked: str | None) -> str:  # noqa: ANN401
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
