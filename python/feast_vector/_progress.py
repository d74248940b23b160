"""A progress bar for the building of text indexes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class TextIndexProgress:
    """Called with a view, the rows done and all rows; shows a bar for each view."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bars: dict[str, tqdm[None]] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __call__(self, view: str, done: int, total: int) -> None:
        """Show how far the view's index is."""
        bar = self._bars.get(view)
        if bar is None:
            description = f"text index of {view}"
            bar = self._open.enter_context(tqdm(total=total, desc=description, unit="rows"))
            self._bars[view] = bar
        bar.update(done - bar.n)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the bars."""
        self._open.close()
