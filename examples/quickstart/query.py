"""Reads features by entity key, and searches by similarity."""

from feast import FeatureStore

store = FeatureStore("feature_repo")

print(">>> get_online_features, ids 7 and 42")
answer = store.get_online_features(
    features=["items:name", "items:data", "items:number"],
    entity_rows=[{"id": 7}, {"id": 42}],
).to_dict()
print({name: answer[name] for name in ("id", "name", "data", "number")})

print("\n>>> retrieve_online_documents_v2, the five nearest to item 42")
embedding = store.get_online_features(
    features=["items:embedding"], entity_rows=[{"id": 42}]
).to_dict()["embedding"][0]
found = store.retrieve_online_documents_v2(
    features=["items:name", "items:data"], query=embedding, top_k=5
).to_dict()
for id_, name, distance in zip(found["id"], found["name"], found["distance"], strict=True):
    print(f"id={id_:<4} name={name}  distance={distance:.4f}")
