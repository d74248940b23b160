"""Filters as callers write them, in the core's terms.

Accepted are Feast's ``ComparisonFilter`` and ``CompoundFilter``, and dicts of the same shape. Their
types are Feast's ``eq``, ``ne``, ``gt``, ``gte``, ``lt``, ``lte``, ``in``, ``nin``, ``and`` and
``or``; for features that are lists ``contains`` (a value) and ``any_of`` (one of several); and
``not``, which has one ``filter``. ``None`` as a value of the first two, or among those of ``in``
and ``nin``, stands for rows without a value.
"""

from __future__ import annotations

import datetime
import decimal
import reprlib
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from feast_vector.errors import InvalidInputError
from feast_vector.limits import Limits

if TYPE_CHECKING:
    from feast.filter_models import ComparisonFilter, CompoundFilter

FilterLike: TypeAlias = "ComparisonFilter | CompoundFilter | Mapping[str, Any]"
"""A filter of Feast's, or a dict of its shape."""

Literal: TypeAlias = "bool | int | float | str | bytes | tuple[int] | tuple[str] | None"
Condition: TypeAlias = "tuple[str, str, list[Literal]] | tuple[str, int]"

_COMBINATIONS = ("and", "or")
_FOR_SEVERAL = ("in", "nin", "any_of")
_LONGEST = 2**63
_DEFAULTS = Limits()
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def conditions(filters: FilterLike, limits: Limits = _DEFAULTS) -> list[Condition]:
    """The filter in postfix order, unless it compares with more values than the limit.

    ``(type, key, values)``, ``("and" or "or", count)`` and ``("not", 1)``.
    """
    found: list[Condition] = []
    compared = 0
    pending: list[tuple[Any, bool]] = [(filters, False)]
    while pending:  # No recursion: filters may nest deeper than Python does.
        node, is_done = pending.pop()
        kind = _part(node, "type")
        if kind == "not":
            if is_done:
                found.append((kind, 1))
            else:
                pending.append((node, True))
                pending.append((_part(node, "filter"), False))
            continue
        if kind not in _COMBINATIONS:
            key, value = _part(node, "key"), _part(node, "value")
            compared += max(1, len(value)) if kind in _FOR_SEVERAL and _is_several(value) else 1
            if compared > limits.filter_values:
                raise _too_many(compared, limits)
            found.append((str(kind), str(key), _values(kind, key, value)))
            continue
        parts = _part(node, "filters")
        if not isinstance(parts, list | tuple):
            message = f"an '{kind}' needs a list of filters, and {_shown(parts)} is none"
            raise InvalidInputError(message, "invalid_filter")
        if is_done:
            found.append((kind, len(parts)))
        elif len(parts) > limits.filter_values:
            raise _too_many(len(parts), limits)
        else:
            pending.append((node, True))
            pending.extend((part, False) for part in reversed(parts))
    return found


def _too_many(compared: int, limits: Limits) -> InvalidInputError:
    message = (
        f"the filter compares with at least {compared} values, and the most is "
        f"{limits.filter_values} (`limits.filter_values` in the online_store section of "
        "feature_store.yaml); keep what these rows have in common in a feature and filter on that, "
        "or raise the limit"
    )
    return InvalidInputError(message, "invalid_filter")


def _shown(value: object) -> str:
    """The value for an error: whoever passed it may have passed a lot."""
    return reprlib.repr(value)


def _is_several(value: object) -> bool:
    return isinstance(value, list | tuple | set | frozenset | np.ndarray)


def _part(node: Any, name: str) -> Any:  # noqa: ANN401
    if isinstance(node, Mapping):
        if name in node:
            return node[name]
    elif hasattr(node, name):
        return getattr(node, name)
    message = (
        "a filter is a ComparisonFilter, a CompoundFilter or a dict with type, key and value "
        "('and' and 'or' have filters instead, 'not' has a filter); "
        f"{_shown(node)} has no '{name}'"
    )
    raise InvalidInputError(message, "invalid_filter")


def _values(kind: str, key: str, value: Any) -> list[Literal]:  # noqa: ANN401
    is_several = _is_several(value)
    if kind in _FOR_SEVERAL:
        if not is_several:
            message = (
                f"filter on '{key}': '{kind}' needs a list of values, and {_shown(value)} is none"
            )
            raise InvalidInputError(message, "invalid_filter")
        return [_literal(item, key) for item in value]
    if is_several:
        message = f"filter on '{key}': '{kind}' compares with one value; for several use 'in'"
        raise InvalidInputError(message, "invalid_filter")
    return [_literal(value, key)]


def _literal(value: Any, key: str) -> Literal:  # noqa: ANN401, C901, PLR0911
    if value is None:
        return None
    if _is_no_time(value):
        message = f"filter on '{key}': {value!r} is no time; for rows without a value pass None"
        raise InvalidInputError(message, "invalid_filter")
    if isinstance(value, np.datetime64):
        return (int(value.astype("datetime64[us]").astype(np.int64)),)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | float | str | bytes):
        return value
    if isinstance(value, int):
        return value if -_LONGEST <= value < _LONGEST else float(value)
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=datetime.timezone.utc)
        return ((value - _EPOCH) // datetime.timedelta(microseconds=1),)
    if isinstance(value, datetime.date):
        return ((value - _EPOCH.date()).days * 86_400_000_000,)
    if isinstance(value, decimal.Decimal):
        return (str(value),)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    message = (
        f"filter on '{key}': values of type {type(value).__name__} compare with nothing; use a "
        "number, text, bytes, a bool, a date, a Decimal or a UUID"
    )
    raise InvalidInputError(message, "invalid_filter")


def _is_no_time(value: Any) -> bool:  # noqa: ANN401
    """Whether it is NaT, of numpy or of pandas, whose own is a datetime of a kind."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, datetime.datetime) and not value == value  # noqa: PLR0124, SIM201
