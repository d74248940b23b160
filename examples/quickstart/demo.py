"""The main job, in a copy of this folder: generate, apply, materialize, read, search, SQL.

One process runs Feast's commands, because importing Feast takes longer than they do.
"""

import os
import runpy
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from feast.cli.cli import cli as feast

SQL = "SELECT id, name, data, number FROM quickstart_items WHERE data > 99.7 ORDER BY data DESC"
DATABASE = "feature_repo/data/online.db"


def say(command: str) -> None:
    print(f"\n$ {command}", flush=True)


def run_feast(*arguments: str) -> None:
    say(" ".join(["feast", "-c", "feature_repo", *arguments]))
    folder = Path.cwd()
    feast.main(["-c", "feature_repo", *arguments], prog_name="feast", standalone_mode=False)
    os.chdir(folder)  # Feast goes to the feature repo.


def run_script(name: str) -> None:
    say(f"python {name}")
    runpy.run_path(name, run_name="__main__")


def main(copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(Path(__file__).parent, copy)
    os.chdir(copy)

    run_script("generate.py")
    run_feast("apply")
    run_feast(
        "materialize-incremental", datetime.now(tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    )
    run_script("query.py")

    say(f'sqlite3 {DATABASE} "{SQL}"')
    # In a process of its own: another SQLite must not open the file in one that uses the store.
    read = (
        "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]), sep='\\n')"
    )
    subprocess.run([sys.executable, "-c", read, DATABASE, SQL], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
