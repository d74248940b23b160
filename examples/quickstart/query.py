"""Reads features by entity key, and searches: by similarity, by words, by both, under filters."""

import feast_vector
from feast import FeatureStore
from feast.filter_models import ComparisonFilter

store = FeatureStore("feature_repo")


def show(columns: dict) -> None:
    for id_, name, data, distance in zip(
        columns["id"], columns["name"], columns["data"], columns["distance"], strict=True
    ):
        print(f"id={id_:<4} name={name:<18} data={data:<7} distance={distance:.4f}")


print(">>> get_online_features, ids 7 and 42")
answer = store.get_online_features(
    features=["items:name", "items:data", "items:number"],
    entity_rows=[{"id": 7}, {"id": 42}],
).to_dict()
print({name: answer[name] for name in ("id", "name", "data", "number")})

print("\n>>> retrieve_online_documents_v2, the three nearest to item 42")
embedding = store.get_online_features(
    features=["items:embedding"], entity_rows=[{"id": 42}]
).to_dict()["embedding"][0]
found = store.retrieve_online_documents_v2(
    features=["items:name", "items:data"], query=embedding, top_k=3
).to_dict()
show(found)

print("\n>>> the same, of those with data over 90, fused with the words 'red lamp'")
found = store.retrieve_online_documents_v2(
    features=["items:name", "items:data"],
    query=embedding,
    query_string="red lamp",
    filters=ComparisonFilter(type="gt", key="data", value=90),
    top_k=3,
).to_dict()
show(found)

print("\n>>> the native call: typed columns, without protos")
items = feast_vector.open_view(store, "items")
found = items.search(embedding, 3, text="red lamp", features=["name"], as_dict=True)
print({name: found[name] for name in ("id", "name")})
