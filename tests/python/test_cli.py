"""The command `feast-vector`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64
from feast_vector import cli

DIM = 64


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A feature repo with indexed vectors, and a view without."""
    folder = tmp_path_factory.mktemp("repo")
    (folder / "feature_store.yaml").write_text(
        "project: shop\nprovider: local\nregistry: registry.db\n"
        "entity_key_serialization_version: 3\nonline_store:\n  type: vector\n"
        "  path: online.db\n  index_builds: on_demand\n"
    )
    store = FeatureStore(folder)
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    rows = pd.DataFrame(
        {
            "id": range(9000),
            "number": range(9000),
            "v": list(np.random.default_rng(0).standard_normal((9000, DIM)).astype("float32")),
            "event_timestamp": pd.Timestamp.now(tz="UTC"),
        }
    )
    path = folder / "items.parquet"
    rows.head(1).to_parquet(path)
    source = FileSource(path=str(path), timestamp_field="event_timestamp")
    vector = Field(name="v", dtype=Array(Float32), vector_index=True, vector_length=DIM)
    plain = Field(name="number", dtype=Int64)
    items = FeatureView(name="items", entities=[item], schema=[plain, vector], source=source)
    numbers = FeatureView(name="numbers", entities=[item], schema=[plain], source=source)
    store.apply([item, items, numbers])
    store.write_to_online_store("items", rows)
    return folder


def run(capsys, *arguments):
    """The status, and what was printed."""
    status = cli.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_info_and_optimize(repo, capsys):
    status, out, _ = run(capsys, "-c", repo, "info")
    assert status == 0
    assert "items: 9,000 rows\n  no vector index" in out
    assert "numbers" not in out
    status, out, _ = run(capsys, "-c", repo, "optimize", "items")
    assert status == 0
    assert "v: 9,000 vectors in 1 list, " in out
    assert "recall@10 " in out
    status, out, _ = run(capsys, "-c", repo, "info", "items")
    assert status == 0
    assert "v, 64 elements, up to date" in out
    assert "9,000 rows (0 since rewritten or deleted), one list, cosine" in out
    assert "recall@10 " in out


def test_mistakes_are_said(repo, tmp_path, capsys):
    status, _, error = run(capsys, "-c", tmp_path, "info")
    assert (status, "there is no feature_store.yaml in" in error) == (1, True)
    status, _, error = run(capsys, "-c", repo, "info", "itmes")
    assert (status, "itmes" in error) == (1, True)
    with pytest.raises(SystemExit):
        run(capsys, "-c", repo, "optimise")


def test_it_is_installed(repo):
    command = Path(sys.executable).with_name("feast-vector")
    run = subprocess.run([command, "-c", repo, "info"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("items: 9,000 rows")
