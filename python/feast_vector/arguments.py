"""What callers of a search pass, checked, with errors that say what to do."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from feast import FeatureView
from feast.repo_config import RepoConfig
from feast.types import String
from numpy.typing import NDArray

from feast_vector import _arrow, views
from feast_vector.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from feast_vector.config import VectorOnlineStoreConfig


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


def query_vectors(
    queries: Sequence[Any] | NDArray[Any], table: FeatureView, field: str, *, many: bool = False
) -> tuple[NDArray[np.float64], bool]:
    """The query, or the queries if ``many`` may be passed, as an array of shape ``(q, d)``.

    And whether they were passed as many, be there only one of them.
    """
    place = f"feature view '{table.name}', feature '{field}'"
    _arrow.validate(queries, place)
    try:
        vectors = np.asarray(queries, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        message = f"{place}: the query vector has to be a list or array of numbers ({cause})"
        raise InvalidInputError(message, "invalid_query") from cause
    if vectors.ndim == 1:
        return vectors[np.newaxis], False
    if vectors.ndim == 2 and many:  # noqa: PLR2004
        return vectors, True
    message = (
        f"{place}: the query vector has the shape {vectors.shape}; it has to have one dimension"
        + (", or two for several queries" if many else "")
    )
    raise InvalidInputError(message, "invalid_query")


def check_vector_search(online: VectorOnlineStoreConfig) -> None:
    """Refuse to search by vector where that is switched off."""
    if not online.vector_enabled:
        message = (
            "vector search is off; set `vector_enabled: true` in the online_store section of "
            "feature_store.yaml"
        )
        raise InvalidInputError(message, "invalid_argument")


def query_texts(
    config: RepoConfig,
    table: FeatureView,
    texts: str | Sequence[str] | None,
    *,
    has_vectors: bool,
) -> list[str] | None:
    """The texts to search for; an empty one beside a vector is none."""
    if texts is None or (texts == "" and has_vectors):
        return None
    several = isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)
    if not several:  # A string is a sequence of strings.
        message = f"feature view '{table.name}': the text to search for has to be a string"
        raise InvalidInputError(message, "invalid_argument")
    queries = [texts] if isinstance(texts, str) else list(texts)
    try:
        "".join(queries).encode()
    except UnicodeEncodeError as cause:
        near = cause.object[max(0, cause.start - 50) : cause.start + 50]
        message = (
            f"feature view '{table.name}': the text to search for is not Unicode text: it holds "
            f"half a surrogate pair: {near!a}"
        )
        raise InvalidInputError(message, "invalid_argument") from None
    if config.online_store.text_search_enabled and not views.text_features(config, table):
        strings = [field.name for field in table.features if field.dtype == String]
        reason = (
            f"`text_features`, or its tag '{views.TEXT_TAG}', chooses none of: {', '.join(strings)}"
            if strings
            else "it has no feature of type String"
        )
        message = f"feature view '{table.name}' has no texts to search: {reason}"
        raise InvalidInputError(message, "text_search_off")
    return queries


def positive(value: int, name: str = "top_k") -> int:
    """A whole number of at least 1, if it is one."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        message = f"{name} has to be a whole number of at least 1, not {value!r}"
        raise InvalidInputError(message, "invalid_argument")
    return min(number, 2**32)


def not_negative(number: int, name: str) -> int:
    """The number, if it is whole and at least 0."""
    try:
        found = operator.index(number)
    except TypeError:
        found = -1
    if found < 0 or isinstance(number, bool):
        message = f"{name} has to be a whole number of at least 0, not {number!r}"
        raise InvalidInputError(message, "invalid_argument")
    return min(found, 2**32)
