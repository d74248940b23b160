"""Writes feature_repo/data/items.parquet: a thousand items with random features and embeddings."""

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ITEMS = 1_000
DIMENSIONS = 32
COLOURS = ["red", "orange", "yellow", "green", "blue", "violet", "white"]
THINGS = ["lamp", "chair", "table", "shelf", "mug", "plate", "bowl", "rug", "clock", "vase", "jar"]

random = np.random.default_rng(7)
now = datetime.now(tz=timezone.utc).replace(microsecond=0)
table = pa.table(
    {
        "id": pa.array(range(ITEMS), pa.int64()),
        "name": [
            f"{COLOURS[number % 7]} {THINGS[number % 11]} {number:04d}" for number in range(ITEMS)
        ],
        "data": random.uniform(0, 100, ITEMS).round(3),
        "number": random.integers(0, 1_000, ITEMS),
        "embedding": pa.array(
            list(random.normal(size=(ITEMS, DIMENSIONS)).astype(np.float32)),
            pa.list_(pa.float32()),
        ),
        "event_timestamp": pa.array([now] * ITEMS, pa.timestamp("us", "UTC")),
    }
)
Path("feature_repo/data").mkdir(exist_ok=True)
pq.write_table(table, "feature_repo/data/items.parquet")
print(f"wrote feature_repo/data/items.parquet: {table.num_rows} rows, {table.num_columns} columns")
