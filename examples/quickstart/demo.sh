#!/usr/bin/env bash
# The main job, in a copy of this feature repo: generate, apply, materialize, read, search, SQL.
set -euo pipefail
run() { printf '\n$ %s\n' "$*"; "$@"; }

repo=${1:?usage: demo.sh FOLDER (where the copy goes)}
rm -rf "$repo"
mkdir -p "$repo"
cp "$(dirname "$0")"/{feature_store.yaml,definitions.py,generate.py,query.py} "$repo"
cd "$repo"

run python generate.py
run feast apply
run feast materialize-incremental "$(date -u +%Y-%m-%dT%H:%M:%S)"
run python query.py
# Another process: SQLite's own tools must not open the file inside one that uses the store.
run python -c '
import sqlite3
rows = sqlite3.connect("data/online.db").execute(
    "SELECT id, name, data, number FROM quickstart_items WHERE data > 99 ORDER BY data DESC LIMIT 3"
)
for row in rows:
    print(row)
'
