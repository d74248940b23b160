"""The command ``feast-vector``: the store of a feature repo and its vector indexes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feast_vector import __version__, _commands
from feast_vector.errors import FeastVectorError

if TYPE_CHECKING:
    from feast_vector.native import VectorView


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="feast-vector", description="The online store of a feature repo."
    )
    parser.add_argument("--version", action="version", version=f"feast-vector {__version__}")
    parser.add_argument("-c", "--chdir", default=".", metavar="REPO", help="the feature repo")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("info", "show the indexes and the recall that was measured when they were built"),
        ("optimize", "build the indexes anew, each as one segment"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("view", nargs="?", help="a feature view; all with vectors, if none")
    _commands.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        if options.command in _commands.NAMES:
            return _commands.run(options)
        for view in _views(options.chdir, options.view):
            (_info if options.command == "info" else _optimize)(view)
    except (FeastVectorError, OSError) as error:
        print(f"feast-vector: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("feast-vector: interrupted", file=sys.stderr)
        return _commands.INTERRUPTED
    return 0


def _views(folder: str, name: str | None) -> Iterator[VectorView]:
    """The views with indexed vectors, or the one that is named."""
    store = _commands.feature_store(folder)
    from feast.errors import FeatureViewNotFoundException

    from feast_vector.native import open_view

    every = [view for view in store.list_all_feature_views() if hasattr(view, "features")]
    names = [view.name for view in every if any(field.vector_index for field in view.features)]
    try:
        for chosen in [name] if name else names:
            yield open_view(store, chosen)
    except FeatureViewNotFoundException as error:
        raise FileNotFoundError(str(error)) from error
    if not name and not names:
        print("no feature view has a field with `vector_index=True`")


def _info(view: VectorView) -> None:
    indexes = view.indexes()
    print(f"{view.name}: {view.count():,} rows")
    if not indexes:
        print("  no vector index: there is none yet, or comparing all vectors is as fast")
    for index in indexes:
        behind = "up to date" if index["covers_change"] == index["last_change"] else "rows to come"
        print(f"  {index['feature']}, {index['length']} elements, {behind}")
        for segment in index["segments"]:
            _segment(segment)


def _segment(segment: dict[str, Any]) -> None:
    report = segment["report"]
    lists = report["lists"]
    kind = "one list" if lists == 1 else f"{lists} lists"
    size = f"{report['bytes'] / 1e6:,.0f} MB"
    print(
        f"    {Path(segment['file']).name}: {report['rows']:,} rows ({segment['dead']:,} since "
        f"rewritten or deleted), {kind}, {report['metric']}, {size}, built in "
        f"{report['seconds']:.1f} s"
    )
    if report["exact"]:
        print("      codes do not reach the recall wanted; every vector is compared")
    chosen = {step["top_k"]: step["lists"] for step in report["probes"]}
    for point in report["curve"]:
        mark = "*" if lists > 1 and chosen.get(point["top_k"]) == point["lists"] else " "
        print(
            f"     {mark}recall@{point['top_k']} {point['recall']:.4f} with {point['lists']} of "
            f"{lists} lists"
        )


def _optimize(view: VectorView) -> None:
    print(f"{view.name}: building", flush=True)
    for feature, report in view.optimize().items():
        if report is None:
            print(f"  {feature}: so few vectors that comparing all of them is as fast")
            continue
        recall = [point["recall"] for point in report["curve"] if point["top_k"] == 10]  # noqa: PLR2004
        told = f", recall@10 {max(recall):.4f} at most" if recall else ""
        print(
            f"  {feature}: {report['rows']:,} vectors in {report['lists']} list"
            f"{'' if report['lists'] == 1 else 's'}, {report['seconds']:.1f} s{told}"
        )


if __name__ == "__main__":
    sys.exit(main())
