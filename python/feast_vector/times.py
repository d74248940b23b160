"""Columns of times, whatever Arrow has them as, in microseconds."""

from __future__ import annotations

import re
from datetime import datetime, timezone

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from feast_vector import _stream

_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SECONDS_PER_DAY = 86_400

# The years 1 to 9999, which Python has.
_FIRST_SECOND = -62_135_596_800
_LAST_SECOND = 253_402_300_799

_FRACTION = re.compile(r"[.,](\d+)")

_FINER = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


def microseconds(column: pa.Array, *, as_feast_does: bool = False, first_row: int = 0) -> pa.Array:
    """The times as ``timestamp[us, UTC]``; null where there is none.

    Args:
        column: Timestamps of any unit, which are UTC where they are naive; dates, at midnight UTC;
            integers and floats, in seconds since 1970; or strings of ISO 8601.
        as_feast_does: Whether numbers are nanoseconds, as Feast's compute engine takes them.
        first_row: The number of the first row, for messages.

    Raises:
        TypeError: No column of times.
        ValueError: A time that is none, or outside of the years 1 to 9999.
    """
    column = _unpacked(column)
    kind = column.type
    if pa.types.is_timestamp(kind):
        ticks, per_second = column.cast(pa.int64()), _TICKS[kind.unit]
    elif pa.types.is_date32(kind):
        days = column.cast(pa.int32()).cast(pa.int64())
        ticks, per_second = pc.multiply(days, _SECONDS_PER_DAY), 1
    elif pa.types.is_date64(kind):
        ticks, per_second = column.cast(pa.int64()), 1000
    elif as_feast_does or _is_text(kind):
        ticks, per_second = _parsed(column, is_text=_is_text(kind), first_row=first_row), 10**6
    elif pa.types.is_integer(kind):
        ticks, per_second = _signed(column, first_row), 1
    elif pa.types.is_floating(kind):
        return _fractional(column, first_row)
    elif pa.types.is_null(kind):
        return pa.nulls(len(column), _stream.TIMESTAMP)
    else:
        message = "it holds neither timestamps nor dates, nor seconds since 1970"
        raise TypeError(message)
    _check(ticks, per_second, first_row)
    if per_second < 10**6:
        ticks = pc.multiply(ticks, 10**6 // per_second)
    elif per_second > 10**6:
        return column.cast(_stream.TIMESTAMP, safe=False)
    return ticks.cast(_stream.TIMESTAMP)


def _unpacked(column: pa.Array) -> pa.Array:
    while True:
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType):
            column = column.storage
        elif pa.types.is_dictionary(kind):
            column = column.dictionary_decode()
        elif pa.types.is_run_end_encoded(kind):
            column = pc.run_end_decode(column)
        else:
            return column


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _signed(column: pa.Array, first_row: int) -> pa.Array:
    if column.type == pa.uint64():
        too_large = pc.greater(column, pa.scalar(2**63 - 1, pa.uint64()))
        _refuse(too_large, column, 1, first_row)
    return column.cast(pa.int64())


def _fractional(column: pa.Array, first_row: int) -> pa.Array:
    seconds = column.cast(pa.float64())
    seconds = pc.if_else(pc.is_nan(seconds), None, seconds)
    outside = pc.or_(
        pc.less(seconds, float(_FIRST_SECOND)), pc.greater(seconds, float(_LAST_SECOND))
    )
    _refuse(outside, seconds, 1, first_row)
    micros = pc.round(pc.multiply(seconds, 1e6))
    return micros.cast(pa.int64(), safe=False).cast(_stream.TIMESTAMP)


def _parsed(column: pa.Array, *, is_text: bool, first_row: int) -> pa.Array:
    """Microseconds, as pandas reads them; in texts, of years that pandas does not have, too."""
    form = "ISO8601" if is_text else None
    try:
        times = pd.to_datetime(column.to_numpy(zero_copy_only=False), utc=True, format=form)
    except pd.errors.OutOfBoundsDatetime:
        if not is_text:
            raise
        return pa.array(
            [_time(text, row) for row, text in enumerate(column.to_pylist(), first_row)],
            _stream.TIMESTAMP,
        ).cast(pa.int64())
    except ValueError as cause:
        for row, text in enumerate(column.to_pylist(), first_row):
            _time(text, row)
        raise ValueError(cause) from cause
    times = pa.array(times, from_pandas=True).cast(_stream.TIMESTAMP, safe=False)
    return times.cast(pa.int64())


def from_text(text: str) -> datetime:
    """The time of a text of ISO 8601, in UTC if it has no offset, cut to microseconds.

    Raises:
        ValueError: It is no such text.
    """
    # Python 3.10 takes three or six digits of a second and no Z.
    text = text.strip().replace("Z", "+00:00")
    text = _FRACTION.sub(lambda digits: f".{digits[1][:6]:0<6}", text)
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _time(text: object, row: int) -> datetime | None:
    if text is None:
        return None
    try:
        return from_text(str(text))
    except ValueError:
        message = f"row {row}: {text!r} is not a time; write it as '2026-01-31T12:00:00Z'"
        raise ValueError(message) from None


def _check(ticks: pa.Array, per_second: int, first_row: int) -> None:
    first, last = _FIRST_SECOND * per_second, (_LAST_SECOND + 1) * per_second - 1
    limits = np.iinfo(np.int64)
    if first <= limits.min and last >= limits.max:
        return
    bounds = pc.min_max(ticks)
    lowest, highest = bounds["min"].as_py(), bounds["max"].as_py()
    if lowest is None or (lowest >= first and highest <= last):
        return
    _refuse(pc.or_(pc.less(ticks, first), pc.greater(ticks, last)), ticks, per_second, first_row)


def _refuse(outside: pa.Array, ticks: pa.Array, per_second: int, first_row: int) -> None:
    """Say which row has a time that is outside, if any has."""
    at = pc.index(outside, value=True).as_py()
    if at < 0:
        return
    tick = ticks[at].as_py()
    unit = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds"}[per_second]
    hint = ""
    if per_second == 1:
        fits = [
            name for name, finer in _FINER.items() if _FIRST_SECOND <= tick / finer <= _LAST_SECOND
        ]
        if fits:
            hint = f"; is it in {fits[0]}? Cast it to a timestamp of that unit"
    message = (
        f"row {first_row + at}: the time {tick} ({unit} since 1970) is outside of the years 1 to "
        f"9999{hint}"
    )
    raise ValueError(message)
