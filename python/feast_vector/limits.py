"""How much one call may ask for: the key ``limits`` of the ``online_store`` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Count = Annotated[int, Field(strict=True, ge=1, le=2**40)]


class Limits(BaseModel):
    """Bounds of one call, whose errors name the limit, its number, and what was found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_bytes: _Count = 65_536
    """Bytes of a query text."""

    query_words: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 256
    """Different words of a query text, or groups of joined ones. Those beyond it are passed over
    where any word will do, and otherwise an error."""

    phrase_words: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 256
    """Words of a query text that is one phrase."""

    joined_words: Annotated[int, Field(strict=True, ge=2, le=10_000)] = 32
    """Words joined by punctuation that are looked for side by side; more are cut into pieces of so
    many."""

    filter_conditions: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 1024
    """Conditions of a filter. Several of one feature that say "one of these", or "none of these",
    are one."""

    filter_values: _Count = 100_000
    """Values that a filter compares with; each condition counts as one at least."""

    queries: _Count = 100_000
    """Queries of one native call."""

    rows: _Count = 10_000_000
    """Rows that one search ranks: ``top_k`` and ``offset`` together, or all that there are, for
    each query."""

    cpu_seconds: Annotated[
        float | None, Field(strict=True, gt=0, le=86_400, allow_inf_nan=False)
    ] = 1.0
    """Seconds of a core, over all threads, that one of Feast's searches may take, and a read that
    Feast's servers make; ``null`` for no bound. Loading what is not in memory yet does not count:
    later calls have the use of it."""

    def of_core(self) -> dict[str, int]:
        """The limits that an engine is opened with; the others are passed with each call."""
        return self.model_dump(exclude={"cpu_seconds"})
