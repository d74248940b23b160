"""Full-text search: what people type, BM25 ranks, and an index that is always in step."""

import json
import math
import random
import re

import pytest
from conftest import (
    at,
    in_another_process,
    integer,
    key,
    make_harness,
    make_view,
    sql_elsewhere,
    text,
    vector,
    vector_view,
)
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64, String
from feast_vector import _core, errors
from feast_vector.views import TEXT_TAG
from hypothesis import given, settings
from hypothesis import strategies as st

VIEW = make_view(fields={"title": String, "body": String, "number": Int64})


@pytest.fixture
def texts(tmp_path):
    """A store in which text search is on."""
    return make_harness(tmp_path, text_search_enabled=True)


def write(harness, rows, view=VIEW, time=0):
    items = rows.items() if isinstance(rows, dict) else enumerate(rows)
    harness.write(
        view,
        *(
            (key(id=i), {"title": text(row)} if isinstance(row, str) else row, at(time))
            for i, row in items
        ),
    )


def ranks(harness, query, view=VIEW, top_k=1000, **options):
    return [
        (entity.entity_values[0].int64_val, row["text_rank"].float_val)
        for entity, row in harness.find(view, text=query, top_k=top_k, **options)
    ]


# --- ranks


def bm25(documents, query, k1=1.2, b=0.75):
    """SQLite's BM25, which counts a word of no more use than a millionth where most rows have it."""
    words = {i: re.findall(r"\w+", document.lower()) for i, document in documents.items()}
    average = sum(map(len, words.values())) / len(words)
    scores = dict.fromkeys(words, 0.0)
    found = set()
    for word in dict.fromkeys(re.findall(r"\w+", query.lower())):
        having = [i for i in words if word in words[i]]
        found.update(having)
        idf = math.log((len(words) - len(having) + 0.5) / (len(having) + 0.5))
        idf = idf if idf > 0 else 1e-6
        for i in having:
            frequency = words[i].count(word)
            scores[i] += (
                idf
                * frequency
                * (k1 + 1)
                / (frequency + k1 * (1 - b + b * len(words[i]) / average))
            )
    return sorted(((i, scores[i]) for i in found), key=lambda row: (-row[1], row[0]))


WORDS = st.lists(
    st.sampled_from(["apple", "pear", "plum", "fig", "the", "a", "of"]), min_size=1, max_size=8
)


@settings(max_examples=100, deadline=None)
@given(
    documents=st.lists(WORDS, min_size=1, max_size=12),
    rewritten=st.dictionaries(st.integers(0, 14), WORDS, max_size=5),
    query=WORDS,
)
def test_ranks_are_bm25(tmp_path_factory, documents, rewritten, query):
    harness = make_harness(
        tmp_path_factory.mktemp("bm25"), text_search_enabled=True, durability="off"
    )
    stored = {i: " ".join(words) for i, words in enumerate(documents)}
    write(harness, stored)
    changed = {i: " ".join(words) for i, words in rewritten.items()}
    write(harness, changed, time=1)
    stored.update(changed)
    expected = bm25(stored, " ".join(query))
    found = ranks(harness, " ".join(query))
    assert [rank for _, rank in found] == pytest.approx([rank for _, rank in expected], rel=1e-5)
    assert dict(found) == pytest.approx(dict(expected), rel=1e-5)


def test_several_features_are_one_text(texts):
    write(
        texts,
        [
            {"title": text("red apple"), "body": text("sweet")},
            {"title": text("pear"), "body": text("red red red")},
            {"body": text("green")},
            {"title": text("unrelated"), "body": text("text")},
            {"title": text("filling"), "body": text("words")},
        ],
    )
    expected = bm25(
        {
            0: "red apple sweet",
            1: "pear red red red",
            2: "green",
            3: "unrelated text",
            4: "filling words",
        },
        "red",
    )
    assert ranks(texts, "red") == [(i, pytest.approx(rank, rel=1e-5)) for i, rank in expected]


# --- what people type

DOCUMENTS = {
    1: "What's new in version 2.0?",
    2: "C++ templates, explained",
    3: "The C programming language",
    4: "C# and F# for beginners",
    5: "hello (world)",
    6: "an a-b test, with a_c and b-a",
    7: 'She said "quoted words" aloud',
    8: "I ❤️ emoji 👨‍👩‍👧 and 🥹",
    9: "東京は日本の首都です",
    10: "京都の天気",
    11: "Café Zürich, naïve façade",
    12: "서울에서 만나요",
    13: "हिन्दी में खोज",
    14: "ΟΔΥΣΣΕΥΣ and Ünïcödé",
    15: "price: 5 € (was 7 €)",
    16: "NEAR AND OR NOT * ^ : { }",
    17: "column title:body",
}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("what's new", [1]),
        ("WHAT\u2019S", [1]),
        ("2.0", [1]),
        ("C++", [2]),
        ("c", [3, 6]),
        ("C#", [4]),
        ("hello (world", [5]),
        ("a-b", [6]),
        ("b-a", [6]),
        ('"quoted words"', [7]),
        ('"quoted', [7]),
        ("'", []),
        ("❤️", [8]),
        ("👨‍👩‍👧", [8]),
        ("🥹", [8]),
        ("👩", []),
        ("東京", [9]),
        ("日本の", [9]),
        ("天気", [10]),
        ("京", [9, 10]),
        ("cafe", [11]),
        ("ZURICH", [11]),
        ("façade", [11]),
        ("서울", [12]),
        ("खोज", [13]),
        ("οδυσσευς", [14]),
        ("unicode", [14]),
        ("€", [15]),
        ("NEAR", [16]),
        ("title:body", [17]),
        ("body:", [17]),
        ("title : zzz", [17]),
        ("", []),
        ("   ", []),
        ("?!…", []),
        ("()*^\"'-+#:{}[]\\;%_", []),
        ("zzz AND", [2, 4, 6, 8, 14, 16]),
        ("\0", []),
        ("hello\0world", [5]),
    ],
)
def test_what_people_type_works(texts, query, expected):
    documents = DOCUMENTS
    if query == "zzz AND":
        documents = {**DOCUMENTS, 2: "C++ and templates"}
    write(texts, documents)
    assert sorted(i for i, _ in ranks(texts, query)) == expected


def test_ten_thousand_characters(texts):
    write(texts, DOCUMENTS)
    assert {i for i, _ in ranks(texts, "hello " + "zzz" * 4000)} == {5}
    assert {i for i, _ in ranks(texts, "hello " + "word " * 2000)} == {5}
    assert {i for i, _ in ranks(texts, "hello " + " ".join(f"w{i}" for i in range(2000)))} == {5}
    assert {i for i, _ in ranks(texts, "東京" * 5000)} == {9}


@pytest.mark.parametrize(
    ("mode", "query", "expected"),
    [
        ("any", "quick fox", {0, 1, 2, 3}),
        ("all", "quick fox", {0, 1, 3}),
        ("phrase", "quick fox", {3}),
        ("phrase", "the quick, brown", {0}),
        ("prefix", "quick f", {0, 1, 3}),
        ("prefix", "qui", {0, 1, 2, 3}),
        ("prefix", "brown fox jum", {0}),
        ("prefix", "fox qui", {0, 1, 3}),
        ("all", "quick zzz", set()),
    ],
)
def test_ways_of_matching(tmp_path, mode, query, expected):
    harness = make_harness(tmp_path, text_search_enabled=True, text_match=mode)
    write(
        harness,
        ["the quick brown fox jumps", "fox, quick!", "quick", "a quick fox", "nothing of it"],
    )
    assert {i for i, _ in ranks(harness, query)} == expected


def explained(harness, query, top_k, view=None):
    """Ids and ranks, and what was looked for."""
    view = view or _core.View("shop", "items", join_keys=[("id", "INT64")], text_features=["title"])
    engine = harness.store.engine(harness.config)
    rows, how = engine.search(
        view, texts=[query], top_k=top_k, explain=True, typed=True, features=[]
    )
    found = list(
        zip(rows.column("id").to_pylist(), rows.column("text_rank").to_pylist(), strict=True)
    )
    return found, json.loads(how)["texts"][0]


def test_common_words_are_not_looked_for_where_they_cannot_matter(texts):
    """They count for the rank of the rows that have a rarer one; and all rows are there to find."""
    write(texts, [f"common w{i % 1000} frequent" for i in range(6000)])
    assert len(ranks(texts, "common", top_k=10_000)) == 6000
    found = [i for i, _ in ranks(texts, "common w7", top_k=10_000)]
    assert found[:6] == list(range(7, 6000, 1000))
    assert sorted(found) == list(range(6000))
    found, how = explained(texts, "common w7 w8 frequent", 3)
    assert [i for i, _ in found] == [7, 8, 1007]
    assert how["passed_over_as_too_common"] == ["common", "frequent"]
    # With few rows every word is looked for.
    few = vector_view("few")
    write(texts, [{"title": text(f"common w{i}")} for i in range(100)], few)
    assert len(ranks(texts, "common w7", few)) == 100


def test_rows_with_more_of_the_words_win_however_many_match(texts):
    colors, things = ["red", "blue", "yellow", "green"], ["lamp", "chair", "vase"]
    write(texts, [f"{colors[i % 4]} {things[i % 3]} {i % 50}" for i in range(9000)])
    found = [i for i, _ in ranks(texts, "red lamp", top_k=750)]
    assert found == list(range(0, 9000, 12))


RARE = [f"r{i}" for i in range(8)]
COMMON = ["the", "of", "lamp", "red"]


def test_ranks_of_many_rows_are_bm25_whatever_is_passed_over(texts):
    draw = random.Random(5)
    documents = {
        i: " ".join(
            draw.choices(COMMON + RARE, [90, 60, 30, 20, 1, 2, 1, 4, 1, 1, 8, 1], k=1 + i % 7)
        )
        for i in range(9000)
    }
    write(texts, documents)
    passed_over = 0
    for _ in range(25):
        words = [*draw.sample(COMMON, draw.randint(0, 3)), *draw.sample(RARE, draw.randint(0, 3))]
        query = " ".join(draw.sample(words, len(words))) or "red"
        expected = bm25(documents, query)
        for top_k in (1, 10, 300):
            found, how = explained(texts, query, top_k)
            passed_over += bool(how["passed_over_as_too_common"])
            best = expected[:top_k]
            assert [rank for _, rank in found] == pytest.approx(
                [rank for _, rank in best], rel=1e-5
            )
            assert dict(found) == pytest.approx(
                {i: rank for i, rank in expected if i in dict(found)}, rel=1e-5
            )
            assert len(dict(found)) == len(best)
    assert passed_over > 5


MARKS = [
    ("Αθήνα", "αθηνα"),
    ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
    ("ёлка й", "елка и"),
    ("שָׁלוֹם", "שלום"),
    ("الْعَرَبِيَّة", "العربية"),
    ("ﬁnance", "finance"),
    ("\uff21\uff22\uff23\uff11\uff12", "abc12"),
    ("co\u00adoper\u200bate", "cooperate"),
    ("Straße", "STRASSE"),
    ("Việt Đà Nẵng", "viet da nang"),
    ("m²", "m2"),
    ("Kindle™", "kindle"),
    ("Smørrebrød", "smorrebrod"),
    ("한국어", "\u1112\u1161\u11ab국어"),
    ("ガ", "ｶﾞ"),
]


def test_case_and_diacritics_do_not_count_in_any_script(texts):
    write(texts, dict(enumerate(written for written, _ in MARKS)))
    for i, pair in enumerate(MARKS):
        for query in pair:
            assert i in [found for found, _ in ranks(texts, query)], query
    # Marks that make another letter do count.
    write(texts, {100: "कि", 101: "का", 102: "ガ", 103: "カ"})
    assert [i for i, _ in ranks(texts, "कि")] == [100]
    assert [i for i, _ in ranks(texts, "カ")] == [103]


def test_an_index_of_other_words_is_filled_again(tmp_path):
    """Files of an older version have texts without what this one makes of them."""
    write(make_harness(tmp_path, text_search_enabled=True), {1: "Αθήνα", 2: "other"})
    stale = "UPDATE _feast_vector_columns SET text_indexed = 1 WHERE text_indexed > 0"
    harness = make_harness(tmp_path)
    sql_elsewhere(harness, stale)
    # A writer that knows of no text search leaves the old index alone.
    write(harness, {3: "Αθήνα too"}, time=1)
    for _ in range(2):
        texts = make_harness(tmp_path, text_search_enabled=True)
        assert {i for i, _ in ranks(texts, "αθηνα")} == {1, 3}
    sql_elsewhere(harness, stale)
    harness.update([VIEW])
    tables = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '_feast_vector_text%'"
    assert sql_elsewhere(harness, tables) == [(0,)]


def test_no_query_text_is_a_bomb(texts):
    write(texts, ["red lamp"] * 100)
    for words in (1000, 10_000):
        assert len(ranks(texts, "-".join(["red"] * words))) == 0
    with pytest.raises(errors.InvalidInputError, match="65536") as caught:
        ranks(texts, "red-" * 100_000)
    assert caught.value.kind == "invalid_query"
    phrase = make_harness(texts.config.repo_path, text_search_enabled=True, text_match="phrase")
    assert len(ranks(phrase, "red lamp")) == 100
    with pytest.raises(errors.InvalidInputError, match="has 300 words, and the most is 256"):
        ranks(phrase, "red " * 300)


def test_rankings_that_took_long_are_those_of_now(texts):
    """They are remembered until the next commit, by whichever process."""
    documents = {i: f"common {'filler ' * (i % 7)}w{i % 10}" for i in range(4500)}
    write(texts, documents)
    other = make_harness(texts.config.repo_path, text_search_enabled=True)
    for step in range(3):
        for _ in range(2):
            assert ranks(texts, "common", top_k=20) == [
                (i, pytest.approx(rank, rel=1e-5)) for i, rank in bm25(documents, "common")[:20]
            ]
        wanted = {"type": "gte", "key": "id", "value": 4490}
        found = ranks(texts, "common", top_k=3, filters=wanted)
        expected = [row for row in bm25(documents, "common") if row[0] >= 4490][:3]
        assert [i for i, _ in found] == [i for i, _ in expected]
        changed = {step * 3: "common", 4490 + step: "rare", 5000 + step: "common"}
        documents.update(changed)
        write(other if step else texts, changed, time=step + 1)


# --- in step


def test_upserts_deletes_and_nulls(texts):
    write(texts, {1: "apple", 2: "apple pie", 3: "pear"})
    write(texts, {1: "plum"}, time=1)
    assert [i for i, _ in ranks(texts, "apple")] == [2]
    assert [i for i, _ in ranks(texts, "plum")] == [1]
    # A write that leaves the text out keeps it; a null takes it away.
    write(texts, {2: {"number": integer(5)}}, time=2)
    assert [i for i, _ in ranks(texts, "apple")] == [2]
    write(texts, {2: {"title": Value()}}, time=3)
    assert ranks(texts, "apple") == []
    # Another feature's text stays when one of two is rewritten.
    write(texts, {2: {"title": text("fig"), "body": text("date")}}, time=4)
    write(texts, {2: {"title": text("kiwi")}}, time=5)
    assert [[i for i, _ in ranks(texts, word)] for word in ("fig", "date", "kiwi")] == [
        [],
        [2],
        [2],
    ]
    # A value of another type is no text.
    write(texts, {3: {"title": integer(7)}}, time=6)
    assert ranks(texts, "pear 7") == []
    # An ignored older write changes nothing.
    write(texts, {1: "older"}, time=0)
    assert ranks(texts, "older") == []


def test_a_failed_batch_leaves_the_index_as_it_was(texts):
    view = vector_view()
    write(texts, {1: {"title": text("apple"), "embedding": vector(1, 2)}}, view)
    with pytest.raises(errors.InvalidInputError):
        texts.write(
            view,
            (key(id=2), {"title": text("pear"), "embedding": vector(1, 2)}, at(0)),
            (key(id=1), {"title": text("plum"), "embedding": vector(1)}, at(1)),
        )
    assert [[i for i, _ in ranks(texts, word, view)] for word in ("apple", "pear", "plum")] == [
        [1],
        [],
        [],
    ]


def test_rows_that_expire(tmp_path):
    import time

    harness = make_harness(tmp_path, text_search_enabled=True, key_ttl_seconds=1)
    write(harness, {1: "apple", 2: "apple"})
    assert len(ranks(harness, "apple")) == 2
    time.sleep(1.1)
    assert ranks(harness, "apple") == []
    write(harness, {1: "apple again"})
    assert [i for i, _ in ranks(harness, "apple")] == [1]
    harness.update([VIEW])
    assert sql_elsewhere(harness, "SELECT count(*) FROM shop_items") == [(1,)]
    assert [i for i, _ in ranks(harness, "again")] == [1]


def test_other_processes_write_and_search(texts, tmp_path):
    write(texts, {1: "apple"})
    code = """
other = make_harness(harness.config.repo_path)  # Text search is not switched on there.
view = make_view(fields={"title": String, "body": String, "number": Int64})
other.write(view, (key(id=2), {"title": text("apple pie")}, at(0)))
"""
    with in_another_process(tmp_path, code) as other:
        assert other.wait() == 0
    assert [i for i, _ in ranks(texts, "apple")] == [1, 2]


# --- which texts, and switching on and off


def test_text_search_that_is_off_says_how_to_switch_it_on(harness):
    write(harness, {1: "apple"})
    pattern = "text search is off; set `text_search_enabled: true` in the online_store section"
    for query in (None, [1.0]):
        view = VIEW if query is None else vector_view("other", length=1)
        with pytest.raises(errors.InvalidInputError, match=pattern) as caught:
            harness.find(view, query, text="apple")
        assert caught.value.kind == "text_search_off"


def test_switching_it_on_for_a_file_that_is_there(tmp_path, capsys):
    write(make_harness(tmp_path), {i: f"apple w{i}" for i in range(3000)})
    # By the next search, the next write, or `feast apply`, which shows how far it is.
    for step in ("search", "write", "apply"):
        make_harness(tmp_path).update([VIEW])
        assert sql_elsewhere(
            make_harness(tmp_path),
            "SELECT count(*) FROM sqlite_schema WHERE name LIKE '_feast_vector_text%'",
        ) == [(0,)]
        harness = make_harness(tmp_path, text_search_enabled=True)
        capsys.readouterr()
        if step == "write":
            write(harness, {3000: "apple"})
        if step == "apply":
            harness.update([VIEW])
            shown = capsys.readouterr().err
            assert "text index of items: 100%" in shown
            assert "3001/3001" in shown
        assert len(ranks(harness, "apple", top_k=10_000)) == (3000 if step == "search" else 3001)


def test_which_features_are_indexed(tmp_path):
    def found(online, tags):
        harness = make_harness(tmp_path, text_search_enabled=True, **online)
        view = make_view(fields={"title": String, "body": String, "number": Int64})
        view.tags = tags
        harness.update([view])
        return [word for word in ("one", "two") if ranks(harness, word, view)]

    write(make_harness(tmp_path), {1: {"title": text("one"), "body": text("two")}})
    assert found({}, {}) == ["one", "two"]
    assert found({"text_features": ["body"]}, {}) == ["two"]
    assert found({"text_features": ["items:title", "other:body"]}, {}) == ["one"]
    assert found({"text_features": ["title"]}, {TEXT_TAG: "body"}) == ["two"]
    assert found({}, {TEXT_TAG: " title , body "}) == ["one", "two"]
    pattern = r"'items', tag 'feast_vector.text_features': there is no feature 'number' of type Str"
    with pytest.raises(errors.InvalidInputError, match=pattern):
        found({}, {TEXT_TAG: "number"})


def test_views_without_texts(texts):
    view = make_view("numbers", {"number": Int64, "other": Float64})
    texts.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    pattern = "'numbers' has no texts to search: it has no feature of type String"
    with pytest.raises(errors.InvalidInputError, match=pattern):
        texts.find(view, text="apple")


def test_a_choice_of_none_is_said_to_be(tmp_path):
    harness = make_harness(tmp_path, text_search_enabled=True, text_features=["titel"])
    write(harness, {1: "apple"})
    pattern = (
        r"'items' has no texts to search: `text_features`, or .*, chooses none of: title, body"
    )
    with pytest.raises(errors.InvalidInputError, match=pattern) as caught:
        harness.find(VIEW, text="apple")
    assert caught.value.kind == "text_search_off"


def test_schema_changes_keep_the_index_in_step(texts):
    write(texts, {1: {"title": text("apple"), "body": text("pear")}})
    narrow = make_view(fields={"title": String})
    texts.update([narrow])
    assert ranks(texts, "pear", narrow) == []
    assert [i for i, _ in ranks(texts, "apple", narrow)] == [1]
    wide = make_view(fields={"title": String, "body": String, "more": String})
    texts.update([wide])
    assert ranks(texts, "pear", wide) == []
    write(texts, {2: {"more": text("pear")}}, wide)
    assert [i for i, _ in ranks(texts, "pear", wide)] == [2]
    retyped = make_view(fields={"title": Int64, "more": String})
    with pytest.warns(UserWarning, match="'title': it was STRING and is INT64 by now"):
        texts.update([retyped])
    assert ranks(texts, "apple", retyped) == []
    assert [i for i, _ in ranks(texts, "pear", retyped)] == [2]


def test_views_that_come_back_have_no_old_texts(texts):
    write(texts, {1: "apple"})
    texts.update(delete=[VIEW])
    assert ranks(texts, "apple") == []
    texts.update([VIEW])
    assert ranks(texts, "apple") == []
    tables = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '_feast_vector_text%_data'"
    assert sql_elsewhere(texts, tables) == [(1,)]
    texts.store.teardown(texts.config, [], [])
    assert sql_elsewhere(texts, tables) == [(0,)]


def test_filters_apply_before_ranking(texts):
    write(texts, {i: {"title": text("apple"), "number": integer(i % 10)} for i in range(200)})
    wanted = {"type": "eq", "key": "number", "value": 3}
    found = [i for i, _ in ranks(texts, "apple", filters=wanted, top_k=15)]
    assert found == list(range(3, 153, 10))


def test_top_k_and_empty_views(texts):
    assert texts.find(VIEW, text="apple") == []
    texts.update([VIEW])
    assert texts.find(VIEW, text="apple") == []
    write(texts, dict.fromkeys(range(5), "apple"))
    assert [i for i, _ in ranks(texts, "apple", top_k=3)] == [0, 1, 2]
    assert len(ranks(texts, "apple", top_k=10**9)) == 5


def test_a_search_by_text_has_no_distance(texts):
    write(texts, {1: "apple"})
    ((_, row),) = texts.find(VIEW, text="apple", features=["title"])
    assert set(row) == {"title", "text_rank"}
