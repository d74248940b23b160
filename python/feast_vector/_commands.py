"""What ``feast-vector`` does for operators: backup, restore, verify, compact, import."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feast_vector import maintenance
from feast_vector._progress import StageProgress

if TYPE_CHECKING:
    import argparse

    from feast import FeatureStore

NAMES = ("backup", "restore", "verify", "compact", "import")

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def add_to(commands: Any) -> None:  # noqa: ANN401  # argparse's own type is private
    """Declare the commands."""

    def command(name: str, text: str, *, takes_path: bool = True) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        if takes_path:
            parser.add_argument(
                "--path", metavar="FILE", help="a database file, instead of the repo's"
            )
        return parser

    backup = command("backup", "copy the database and its indexes into a new folder, while in use")
    backup.add_argument("target", help="the folder to make")
    backup.add_argument("--force", action="store_true", help="replace an older backup")
    restore = command("restore", "put a backup in the place of the database, while in use")
    restore.add_argument("source", help="a folder that `backup` has made")
    restore.add_argument(
        "--discard", action="store_true", help="do not keep the file that is replaced"
    )
    verify = command("verify", "check the database, its text index and its vector indexes")
    verify.add_argument("backup", nargs="?", help="check this backup instead")
    verify.add_argument("--json", action="store_true", help="print the report as JSON")
    verify.add_argument(
        "--limit", type=int, default=20, metavar="N", help="list at most N findings of each kind"
    )
    command("compact", "give disk space back, while others read")
    imported = command(
        "import", "fill the store from Feast's own sqlite online store", takes_path=False
    )
    imported.add_argument("views", nargs="*", help="feature views; all of the repo, if none")
    imported.add_argument(
        "--from", dest="source", metavar="FILE", help="Feast's file; the store's own, if not given"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command that was given; gives the exit status."""
    with StageProgress() as progress:
        report = _report(options, progress)
    if options.command == "verify":
        return _print_verified(report, as_json=options.json)
    _PRINTERS[options.command](report)
    return 0


def feature_store(folder: str) -> FeatureStore:
    """The feature store of a repo."""
    if not (Path(folder) / "feature_store.yaml").exists():
        place = Path(folder).resolve()
        message = f"there is no feature_store.yaml in '{place}'; pass the feature repo with -c"
        raise FileNotFoundError(message)
    from feast import FeatureStore

    return FeatureStore(folder)


def _report(options: argparse.Namespace, progress: StageProgress) -> dict[str, Any]:
    command = options.command
    if command == "verify" and options.backup:
        if not Path(options.backup).is_dir():
            message = f"'{options.backup}' is not a backup: it is not a folder"
            raise FileNotFoundError(message)
        return maintenance.verify(options.backup, limit=options.limit, progress=progress)
    if command == "import":
        from feast_vector.importing import import_sqlite

        store = feature_store(options.chdir)
        return import_sqlite(store, options.source, views=options.views or None, progress=progress)
    store = options.path or feature_store(options.chdir)
    if command == "backup":
        return maintenance.backup(
            store, options.target, replace=options.force, progress=progress
        ) | {"target": options.target}
    if command == "restore":
        return maintenance.restore(
            store, options.source, keep=not options.discard, progress=progress
        ) | {"source": options.source}
    if command == "compact":
        return maintenance.compact(store, progress=progress)
    return maintenance.verify(store, limit=options.limit, progress=progress)


def _views(views: list[dict[str, Any]] | None) -> str:
    if views is None:
        return "nothing that could be read"
    rows = sum(view["rows"] for view in views)
    return f"{_count(rows, 'row')} in {_count(len(views), 'view')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(number: int) -> str:
    return f"{number / 1e6:,.1f} MB"


def _print_backup(manifest: dict[str, Any]) -> None:
    files = [manifest["database"], *manifest["index_files"]]
    size = _size(sum(file["bytes"] for file in files))
    indexes = _count(len(manifest["index_files"]), "index file")
    print(f"{manifest['target']}: {_views(manifest['views'])}, {indexes}, {size}")
    for name in manifest["missing_index_files"]:
        print(f"  the index file {name} is missing; it is built again after a restore")


def _print_restore(report: dict[str, Any]) -> None:
    created = report["created"]
    print(f"restored {report['source']} of {created}: {_views(report['restored'])}")
    if report["replaced"] is not None or report["kept"]:
        print(f"  replaced {_views(report['replaced'])}")
    before = {_identity(view): view["rows"] for view in report["replaced"] or []}
    after = {_identity(view): view["rows"] for view in report["restored"]}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name) and before:
            rows = [f"{side[name]:,}" if name in side else "none" for side in (before, after)]
            print(f"    {name}: {rows[0]} rows before, {rows[1]} now")
    if report["kept"]:
        print(f"  the replaced file is kept as {report['kept']}")


def _identity(view: dict[str, Any]) -> str:
    version = f"@v{view['version']}" if view["version"] else ""
    return f"{view['project']}.{view['view']}{version}"


def _print_verified(report: dict[str, Any], *, as_json: bool) -> int:
    status = 0 if report["ok"] else 1
    if as_json:
        print(json.dumps(report, indent=2))
        return status
    for note in report["notes"]:
        print(f"note: {note}")
    checked = f"{_count(report['rows'], 'row')} and {_count(report['vectors'], 'indexed vector')}"
    if report["ok"]:
        print(f"ok: {checked}")
        return status
    for finding in report["findings"]:
        print(f"{finding['check']}: {_place(finding)}{finding['message']}")
    total = sum(report["counts"].values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report["counts"].items())
    more = total - len(report["findings"])
    listed = f"; {more:,} more are not listed" if more else ""
    print(f"{_count(total, 'problem')} ({kinds}) in {checked}{listed}", file=sys.stderr)
    return status


def _place(finding: dict[str, Any]) -> str:
    parts = []
    if finding["view"]:
        parts.append(f"feature view '{finding['project']}.{finding['view']}'")
    if finding["feature"]:
        parts.append(f"feature '{finding['feature']}'")
    if finding["row_id"] is not None:
        key = f" ({finding['entity_key']})" if finding["entity_key"] else ""
        parts.append(f"row {finding['row_id']}{key}")
    if finding["file"]:
        parts.append(f"file '{finding['file']}'")
    return f"{', '.join(parts)}: " if parts else ""


def _print_compact(report: dict[str, Any]) -> None:
    before, after = report["before"], report["after"]
    print(f"{_size(before)} before, {_size(after)} now: {_size(max(0, before - after))} given back")
    if not report["index_files_swept"]:
        print("  an index is being built; its old files go when that is done")


def _print_import(report: dict[str, Any]) -> None:
    for view in report["views"]:
        print(
            f"{view['view']}: {_count(view['entities'], 'entity row')} read, "
            f"{view['written']:,} written, {view['ignored']:,} older than what is stored"
        )
        for feature, count in view["unknown_features"].items():
            print(f"  feature '{feature}' is not in the view; {count:,} values are not imported")
        for problem in view["unreadable"]:
            print(f"  not imported: {problem}")
    for table, rows in report["unknown_tables"].items():
        print(f"the table '{table}' is of no feature view of this repo; {rows:,} values stay there")
    if not report["views"] and not report["unknown_tables"]:
        print("there are no rows of Feast's sqlite store in the file")


_PRINTERS = {
    "backup": _print_backup,
    "restore": _print_restore,
    "compact": _print_compact,
    "import": _print_import,
}
