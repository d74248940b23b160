"""What strangers may ask of `feast serve`: every request is answered or refused, at a bounded cost."""

import re

import feast_vector
import pytest
from conftest import SHOP_ROWS
from feast.feature_server import get_app
from feast_vector import errors
from feast_vector.limits import Limits
from starlette.testclient import TestClient

FEATURES = ["items:title", "items:price"]
# A search or a read is stopped at its first look at the clock.
NOTHING = 1e-9
SEARCH, DEPRECATED = "/search", "/retrieve-online-documents"


@pytest.fixture
def client(shop_store):
    """Feast's feature server over the shop."""
    app = get_app(shop_store, registry_ttl_sec=0)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def limit(store, **limits):
    """Have the store's configuration say so, as a server would have read it."""
    store.config.online_store.limits = Limits(**limits)


def search(client, status=200, path=SEARCH, **body):
    body = {"features": FEATURES, "top_k": 3, "api_version": 2, **body}
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text[:500]
    return answer


def read(client, status=200, entities=SHOP_ROWS):
    body = {"features": FEATURES, "entities": {"id": list(range(entities))}}
    answer = client.post("/get-online-features", json=body)
    assert answer.status_code == status, answer.text[:500]
    return answer


def values(answer, name="title"):
    answer = answer.json()
    return answer["results"][answer["metadata"]["feature_names"].index(name)]["values"]


def compare(kind, key, value):
    return {"type": kind, "key": key, "value": value}


VECTOR, TEXT = {"query": [1.0, 2.0]}, {"query": None, "query_string": "red item"}
FILTERED = {**VECTOR, "filters": compare("gt", "price", 1)}
HOSTILE = {
    "or of 5,000": (
        {
            **VECTOR,
            "filters": {"type": "or", "filters": [compare("gt", "price", i) for i in range(5000)]},
        },
        r"5000 conditions .*the most is 1024 \(`limits.filter_conditions`",
    ),
    "in of 200,000": (
        {**VECTOR, "filters": compare("in", "stock", list(range(200_000)))},
        r"at least 200000 values, and the most is 100000 \(`limits.filter_values`",
    ),
    "a million words": (
        {"query": None, "query_string": "red " * 10**6},
        r"4000000 bytes, and the most is 65536 \(`limits.query_bytes`",
    ),
}


@pytest.mark.parametrize("path", [SEARCH, DEPRECATED])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_request_beyond_a_limit_is_refused_by_its_number(client, path, kind):
    body, pattern = HOSTILE[kind]
    assert re.search(pattern, search(client, 422, path, **body).text)


@pytest.mark.parametrize("body", [VECTOR, TEXT, FILTERED, {**VECTOR, "query_string": "red"}])
def test_any_top_k_finds_what_there_is(client, body):
    expected = [i for i in range(SHOP_ROWS) if i / 4 > 1 or "filters" not in body]
    found = values(search(client, **body, top_k=10**9))
    assert sorted(found) == sorted(f"item {i} {'red' if i % 2 else 'blue'}" for i in expected)


def test_more_rows_than_max_top_k_are_refused(client, shop_store):
    shop_store.config.online_store.max_top_k = SHOP_ROWS - 1
    answer = search(client, 422, **VECTOR, top_k=10**9)
    assert "a search for 1000000000 rows finds more than 39; ask for fewer, or set" in answer.text


@pytest.mark.parametrize("path", [SEARCH, DEPRECATED])
@pytest.mark.parametrize("body", [VECTOR, TEXT, FILTERED, {**VECTOR, "query_string": "red"}])
def test_a_search_takes_no_more_of_the_processors_than_it_may(client, shop_store, path, body):
    limit(shop_store, cpu_seconds=NOTHING)
    answer = search(client, 422, path, **body)
    assert "'items'" in answer.text
    assert "more than 0.000000001 seconds of a core" in answer.text
    assert "(`cpu_seconds`, under `limits` in the online_store section" in answer.text
    limit(shop_store, cpu_seconds=None)
    assert len(values(search(client, path=path, **body))) == 3
    limit(shop_store)
    assert shop_store.config.online_store.limits.cpu_seconds == 1
    assert len(values(search(client, path=path, **body))) == 3


def test_the_first_way_to_search_is_bounded(client, shop_store):
    features = {"features": ["items:title", "items:embedding"]}
    limit(shop_store, cpu_seconds=NOTHING)
    body = {**VECTOR, **features, "api_version": 1}
    assert "of a core" in search(client, 422, DEPRECATED, **body).text
    limit(shop_store)
    assert search(client, 200, DEPRECATED, **body)


@pytest.mark.parametrize("entities", [1, SHOP_ROWS, 20_000])
def test_a_read_takes_no_more_of_the_processors_than_it_may(client, shop_store, entities):
    limit(shop_store, cpu_seconds=NOTHING)
    answer = read(client, 422, entities)
    assert re.search(r"'items'.*the read took more than .*ask for fewer entities", answer.text)
    limit(shop_store)
    assert values(read(client, entities=entities))[0] == "item 0 blue"


def test_programs_of_the_users_own_read_without_a_bound(shop_store):
    limit(shop_store, cpu_seconds=NOTHING)
    rows = [{"id": 1}]
    found = shop_store.get_online_features(FEATURES, rows).to_dict()
    assert found["title"] == ["item 1 red"]
    items = feast_vector.open_view(shop_store, "items")
    assert items.search([1.0, 2.0], 3).num_rows == 3
    assert items.read([1]).num_rows == 1
    with pytest.raises(errors.InvalidInputError, match="of a core") as caught:
        items.search([1.0, 2.0], 3, cpu_seconds=NOTHING)
    assert caught.value.kind == "too_costly"
    with pytest.raises(errors.InvalidInputError, match="cpu_seconds has to be a time in seconds"):
        items.search([1.0, 2.0], 3, cpu_seconds=-1.0)
    # A server says that it is one, and then awaited or not makes no difference.
    with (
        TestClient(get_app(shop_store, registry_ttl_sec=0)),
        pytest.raises(errors.InvalidInputError, match="of a core"),
    ):
        shop_store.get_online_features(FEATURES, rows)
