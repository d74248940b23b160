"""Bad input gets a sentence that says what was wrong, where, and what to do; nothing is lost."""

import ast
import inspect
import json
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path

import feast_vector
import numpy as np
import pytest
from conftest import (
    at,
    integer,
    key,
    make_harness,
    make_view,
    text,
    vector,
    vector_view,
)
from feast import Field
from feast.errors import FeastError
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigError, RepoConfig, load_repo_config
from feast.types import Array, Float32, String
from feast_vector import _core, config, errors, views
from pydantic import ValidationError

HERE = Path(__file__).parent


def search(harness, view, query, top_k=3, metric="L2", features=("title",)):
    return harness.store.retrieve_online_documents_v2(
        harness.config, view, list(features), query, top_k, metric
    )


@pytest.fixture
def items(harness):
    """A view with two rows."""
    view = vector_view()
    harness.write(
        view,
        (key(id=1), {"title": text("one"), "embedding": vector(1, 0)}, at(0)),
        (key(id=2), {"title": text("two"), "embedding": vector(0, 1)}, at(0)),
    )
    return view


# --- vectors and queries


def test_a_vector_of_the_wrong_length_is_refused_and_the_batch_with_it(harness, items):
    rows = [(key(id=i), {"embedding": vector(i, i)}, at(1)) for i in range(3, 9)]
    rows.append((key(id=99), {"embedding": vector(1, 2, 3)}, at(1)))
    pattern = (
        r"feature view 'items' of project 'shop', row 6 \(id=99\): feature 'embedding' "
        r"\(FLOAT_LIST\): a vector of 3 values where the feature declares vector_length=2; nothing"
    )
    with pytest.raises(errors.InvalidInputError, match=pattern) as caught:
        harness.write(items, *rows)
    assert caught.value.kind == "invalid_value"
    assert harness.read(items, key(id=3)) == [(None, None)]
    assert len(search(harness, items, [1, 0], 100)) == 2


@pytest.mark.parametrize(
    ("query", "pattern"),
    [
        (
            [1, 0, 0],
            r"'items'.*feature 'embedding': the query vector has 3 values, but .*_length=2",
        ),
        ([float("nan"), 0], r"feature 'embedding': the query vector holds NaN at position 0"),
        ([0, float("inf")], r"the query vector holds inf at position 1"),
        ([0, 0], r"the query vector is all zeros, which has no direction"),
        ([], r"the query vector is empty"),
        ([1e39, 0], r"which float32 cannot hold"),
        ("abc", r"'items', feature 'embedding': the query vector has to be a list or array of num"),
        ([[1, 0]], r"has the shape \(1, 2\); it has to have one dimension"),
        ([None, 1], r"the query vector"),
        (np.array(["x"]), r"the query vector has to be a list or array of numbers"),
    ],
)
def test_bad_queries(harness, items, query, pattern):
    with pytest.raises(errors.InvalidInputError, match=pattern) as caught:
        search(harness, items, query, metric="cosine")
    assert caught.value.kind == "invalid_query"


def test_a_query_of_another_length_where_none_is_declared(harness):
    view = vector_view(length=0)
    harness.write(view, (key(id=1), {"title": text(""), "embedding": vector(1, 2)}, at(0)))
    with pytest.raises(ValueError, match="has 3 values, but the stored vectors have 2"):
        search(harness, view, [1, 2, 3])


@pytest.mark.parametrize("top_k", [0, -1, "ten", 2.5, None, True])
def test_bad_top_k(harness, items, top_k):
    with pytest.raises(ValueError, match="top_k has to be a whole number of at least 1, not"):
        search(harness, items, [1, 0], top_k=top_k)


def test_unknown_metrics(tmp_path, harness, items):
    pattern = "unknown metric 'hamming'; use 'cosine', 'L2', 'inner_product' or 'L1'"
    place = "feature view 'items', feature 'embedding': "
    with pytest.raises(ValueError, match=place + pattern) as caught:
        search(harness, items, [1, 0], metric="hamming")
    assert caught.value.kind == "unknown_metric"
    view = vector_view(metric="hamming")
    with pytest.raises(ValueError, match=place + pattern):
        search(harness, view, [1, 0])
    with pytest.raises(ValueError, match=place + pattern):
        harness.update([view])
    with pytest.raises(ValidationError, match=pattern):
        make_harness(tmp_path / "x", similarity="hamming").config.online_store  # noqa: B018


def test_the_first_search_method_refuses_another_metric_than_the_declared_one(tmp_path, harness):
    def ids(harness, view, metric):
        found = harness.store.retrieve_online_documents(
            harness.config, view, ["title"], [1.0, 1.0], 2, metric
        )
        return [entity.entity_values[0].int64_val for _, entity, *_ in found]

    rows = [(key(id=i), {"embedding": vector(*v)}, at(0)) for i, v in ((1, (9, 9)), (2, (1, 0)))]
    declared, plain = vector_view("declared", metric="L2"), vector_view("plain")
    for view in (declared, plain):
        harness.write(view, *rows)
    for metric in ("L2", "euclidean", None):
        assert ids(harness, declared, metric) == [2, 1]
    for metric in ("cosine", "L1", "ip"):
        pattern = (
            f"view 'declared', feature 'embedding': the metric asked for is '{metric}', but the "
            "field's vector_search_metric is 'L2'"
        )
        with pytest.raises(ValueError, match=pattern):
            ids(harness, declared, metric)
    with pytest.raises(ValueError, match="'declared', feature 'embedding': unknown metric 'wrong'"):
        ids(harness, declared, "wrong")
    # What is declared nowhere is the caller's; Feast's own "L2" stands for saying nothing.
    expected = {"cosine": [1, 2], "L1": [2, 1], "inner_product": [1, 2], "L2": [1, 2], None: [1, 2]}
    for metric, found in expected.items():
        assert ids(harness, plain, metric) == found
    configured = make_harness(tmp_path, similarity="inner_product")
    with pytest.raises(ValueError, match="but similarity is 'inner_product'"):
        ids(configured, plain, "cosine")


def test_a_metric_that_is_null_is_cosine_and_served_by_its_index(tmp_path):
    harness = make_harness(tmp_path, similarity=None, index_builds="on_demand")
    view = vector_view(length=64)
    draw = random.Random(3)
    vectors = [[draw.gauss(0, 1) * (1 + i % 5) for _ in range(64)] for i in range(9000)]
    harness.write(
        view, *((key(id=i), {"embedding": vector(*v)}, at(0)) for i, v in enumerate(vectors))
    )
    engine, declared = harness.store.engine(harness.config), views.declaration(harness.config, view)
    report = json.loads(engine.optimize(declared))
    assert report["embedding"]["metric"] == "cosine"
    query = np.array([vectors[7]])
    _, how = engine.search(
        declared,
        feature="embedding",
        queries=query,
        metric=views.metric_of(harness.config, view, view.features[-1], "L2"),
        top_k=1,
        explain=True,
    )
    assert json.loads(how)["strategy"] == "index"
    ((found, row),) = harness.find(view, vectors[7], top_k=1)
    assert found.entity_values[0].int64_val == 7
    assert row["distance"].float_val == pytest.approx(0, abs=1e-6)


def test_views_without_a_vector_field(harness):
    view = make_view()
    with pytest.raises(ValueError, match=r"'items' has no vector field; declare one with `Field"):
        search(harness, view, [1, 0], features=["name"])


def test_several_vector_fields(harness, items):
    items.features.append(Field(name="second", dtype=Array(Float32), vector_index=True))
    with pytest.raises(ValueError, match=r"several vector fields \(embedding, second\)"):
        search(harness, items, [1, 0])


def test_a_vector_field_that_holds_no_vectors(harness):
    view = make_view(fields={"title": String})
    view.features[0].vector_index = True
    harness.write(view, (key(id=1), {"title": text("x")}, at(0)))
    pattern = r"feature 'title': features of type STRING hold no vectors; searched can be lists"
    with pytest.raises(ValueError, match=pattern) as caught:
        search(harness, view, [1, 0])
    assert caught.value.kind == "not_a_vector"


def test_unknown_features(harness, items):
    pattern = r"'items' has no feature 'titel'; its features are: embedding, title"
    with pytest.raises(errors.NotFoundError, match=pattern):
        search(harness, items, [1, 0], features=["titel"])


def test_search_that_is_switched_off(tmp_path, items):
    harness = make_harness(tmp_path, vector_enabled=False)
    with pytest.raises(ValueError, match="set `vector_enabled: true` in the online_store section"):
        search(harness, items, [1, 0])


@pytest.mark.parametrize(
    ("declared", "similarity", "warned"),
    [
        ("dot_product", "cosine", True),
        (None, "inner_product", True),
        ("IP", "cosine", False),
        ("inner_product", "cosine", False),
        ("euclidean", "inner_product", False),
        (None, "cosine", False),
    ],
)
def test_scores_that_feast_would_rank_wrongly_are_warned_of(tmp_path, declared, similarity, warned):
    harness = make_harness(tmp_path, similarity=similarity)
    view = vector_view(metric=declared)
    if warned:
        with pytest.warns(UserWarning, match=r"'items', feature 'embedding': searches rank by inn"):
            harness.update([view])
    else:
        harness.update([view])


# --- configuration


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("pth: x", r"pth\s+Extra inputs are not permitted"),
        ("durability: maybe", r"durability\s+Input should be 'full', 'normal' or 'off'"),
        ("busy_timeout: -1", r"busy_timeout\s+Input should be greater than or equal to 0"),
        ("similarity: hamming", r"similarity\s+Value error, unknown metric 'hamming'"),
        ("key_ttl_seconds: 0", r"key_ttl_seconds\s+Input should be greater than 0"),
    ],
)
def test_a_wrong_key_in_feature_store_yaml_is_named(tmp_path, line, pattern):
    path = tmp_path / "feature_store.yaml"
    path.write_text(
        "project: shop\nprovider: local\nregistry: r.db\nentity_key_serialization_version: 3\n"
        f"online_store:\n  type: vector\n  {line}\n"
    )
    with pytest.raises(FeastConfigError, match=pattern):
        load_repo_config(tmp_path, path)


def test_every_config_key_is_documented():
    fields = feast_vector.VectorOnlineStoreConfig.model_fields
    module = ast.parse(inspect.getsource(config))
    classes = [statement for statement in module.body if isinstance(statement, ast.ClassDef)]
    (body,) = (found.body for found in classes if found.name == "VectorOnlineStoreConfig")
    documented = {
        body[i].target.id
        for i in range(len(body) - 1)
        if isinstance(body[i], ast.AnnAssign) and isinstance(body[i + 1], ast.Expr)
    }
    assert documented == set(fields)
    readme = (HERE.parents[1] / "README.md").read_text()
    assert [name for name in fields if f"`{name}`" not in readme] == []


# --- keys and values


def test_an_entity_key_of_a_kind_that_feast_does_not_have(harness):
    view = make_view()
    pattern = r"join key 'id' has a value of type DOUBLE; entity keys can be STRING, BYTES, INT32"
    bad = key(id=Value(double_val=1.5))
    with pytest.raises(ValueError, match=pattern):
        harness.write(view, (bad, {"number": integer(1)}, at(0)))
    with pytest.raises(ValueError, match="entity keys can be"):
        harness.write(view, (key(id=1), {}, at(0)))
        harness.read(view, bad)
    lopsided = EntityKey(join_keys=["a", "b"], entity_values=[integer(1)])
    with pytest.raises(ValueError, match="an entity key has 2 join keys but 1 values"):
        harness.write(view, (lopsided, {"number": integer(1)}, at(0)))


@pytest.mark.parametrize("position", [0, 10_000])
def test_a_value_that_is_none_of_feasts(harness, position):
    view = make_view()
    rows = [(key(id=i), {"number": integer(i)}, at(0)) for i in range(10_001)]
    rows[position] = (key(id=position), {"number": 5}, at(0))
    with pytest.raises(errors.InvalidInputError, match="feature 'number': a value cannot be seria"):
        harness.write(view, *rows)
    assert harness.read(view, key(id=1)) == [(None, None)]


def test_a_time_that_is_none(harness):
    with pytest.raises(errors.InvalidInputError, match="entity key or timestamps cannot be writ"):
        harness.write(make_view(), (key(id=1), {"number": integer(1)}, "yesterday"))


def test_a_value_of_another_type_than_the_schema_is_kept(harness):
    """Feast's own stores take it, and so its writers send it."""
    view = make_view()
    harness.write(view, (key(id=1), {"number": text("twelve"), "name": integer(5)}, at(0)))
    assert harness.read(view, key(id=1))[0][1] == {"number": text("twelve"), "name": integer(5)}


# --- the exceptions


def test_every_kind_of_the_core_has_its_class():
    kinds = _core.error_kinds()
    assert len(kinds) > 10
    for name in kinds.values():
        assert issubclass(getattr(errors, name), errors.FeastVectorError)
    assert set(kinds.values()) == {
        name
        for name, value in vars(errors).items()
        if name.endswith("Error") and value is not errors.FeastVectorError
    }


def test_kinds_raised_in_python_are_the_cores():
    package = Path(feast_vector.__file__).parent
    raised = re.compile(r'(\w+Error)\(\s*\w+,\s*"(\w+)"\s*\)')
    found = {match for file in package.glob("*.py") for match in raised.findall(file.read_text())}
    assert len(found) >= 5
    assert found <= {(name, kind) for kind, name in _core.error_kinds().items()}


def test_exceptions_survive_pickling():
    error = errors.BusyError("wait", "busy")
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, errors.BusyError)
    assert (str(back), back.kind) == ("wait", "busy")


def test_feasts_server_says_what_to_do_and_tells_no_paths():
    message = "online store '/srv/a b/online.db': index file '/srv/x/1.seg': it is damaged"
    for name, status in (
        ("BusyError", 503),
        ("InvalidInputError", 422),
        ("NotFoundError", 404),
        ("StorageError", 500),
        ("FormatError", 500),
        ("InternalError", 500),
    ):
        plain = getattr(errors, name)
        error = plain(message, "kind")
        assert isinstance(error, plain)
        assert isinstance(error, FeastError)
        assert error.http_status_code() == status
        assert (str(error), error.kind) == (message, "kind")
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), back.kind) == (type(error), message, "kind")
        received = FeastError.from_error_detail(error.to_error_detail())
        assert isinstance(received, plain)
        assert str(received) == "the online store: index file '1.seg': it is damaged"
    assert errors.StorageError("full", "disk_full").http_status_code() == 507
    assert isinstance(errors.BusyError("wait", "busy"), TimeoutError)


def test_errors_do_without_feast():
    source = """
import importlib.util, pickle, sys
spec = importlib.util.spec_from_file_location("errors", sys.argv[1])
errors = sys.modules["errors"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(errors)
error = pickle.loads(pickle.dumps(errors.BusyError("wait", "busy")))
print(type(error) is errors.BusyError, error, error.kind, "feast" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", source, errors.__file__],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "wait", "busy", "False"]


def test_messages_are_sentences_without_debug_dumps(harness, items):
    messages = []
    for query in ([1], [float("nan"), 1], [0, 0]):
        with pytest.raises(errors.InvalidInputError) as caught:
            search(harness, items, query, metric="cosine")
        messages.append(str(caught.value))
    assert not any(re.search(r"Some\(|Err\(|\bNone\b|\w+ \{", message) for message in messages)


def test_repo_config_names_the_store(tmp_path):
    config = RepoConfig(
        project="shop",
        provider="local",
        registry="r.db",
        online_store="vector",
        entity_key_serialization_version=3,
        repo_path=tmp_path,
    )
    assert type(config.online_store) is feast_vector.VectorOnlineStoreConfig
