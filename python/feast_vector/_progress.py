"""Progress bars: for the building of text indexes, and for what operators do."""

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


class StageProgress:
    """Called with a stage, what is done of it and all there is; shows a bar for each stage."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._stage: str | None = None
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show how far the stage is."""
        if stage != self._stage or self._bar is None:
            self._close()
            scales = stage == "files"
            self._bar = tqdm(
                total=total,
                desc=stage,
                unit="B" if scales else "",
                unit_scale=scales,
                leave=False,
                # Nothing where nobody looks.
                disable=None,
            )
            self._stage = stage
        if total is None:
            self._bar.refresh()
        else:
            self._bar.total = total
            self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the bar."""
        self._close()
