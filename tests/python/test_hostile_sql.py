"""Statements that somebody else wrote: they read, within limits, and can be stopped."""

import signal
import subprocess
import sys
import threading

import feast_vector
import pytest
from conftest import SHOP_ROWS, make_harness, make_view
from feast_vector import errors

ENDLESS = "WITH RECURSIVE c(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM c) SELECT {} FROM c"


def refused(store, statement, *parameters, match, **options):
    with pytest.raises(errors.InvalidInputError, match=match) as caught:
        feast_vector.sql(store, statement, parameters, **options)
    assert caught.value.kind == "invalid_sql"


@pytest.mark.parametrize(
    "call",
    [
        "fts3_tokenizer('simple')",
        "fts3_tokenizer('mine', ?)",
        "load_extension('x')",
        "sqlite_compileoption_used('THREADSAFE')",
        "sqlite_source_id()",
        "matchinfo(1)",
        "offsets(1)",
        "optimize(1)",
        "rtreecheck('main', 'x')",
        "fts5(?)",
        "fts5_source_id()",
        "edit('x')",
        "readfile('/etc/passwd')",
        "writefile('x', 'y')",
        "last_insert_rowid()",
        "changes()",
    ],
)
def test_functions_that_are_on_no_list_are_refused(shop_store, call):
    parameters = [b"\0" * 8] * call.count("?")
    refused(
        shop_store,
        f"SELECT {call}",
        *parameters,
        match="not authorized|no such function|prohibited",
    )


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM pragma_function_list",
        "SELECT * FROM pragma_compile_options",
        "PRAGMA database_list",
        "PRAGMA compile_options",
        "PRAGMA wal_checkpoint",
        "PRAGMA optimize",
        "PRAGMA shrink_memory",
        "PRAGMA integrity_check",
        "PRAGMA mmap_size = 0",
        "ATTACH '/etc/passwd' AS p",
        "VACUUM INTO '/tmp/stolen.db'",
        "SELECT * FROM sqlite_dbpage",
        "SELECT * FROM dbstat",
        "SELECT * FROM sqlite_stmt",
    ],
)
def test_pragmas_and_tables_that_are_on_no_list_are_refused(shop_store, statement):
    refused(shop_store, statement, match="only reads|no such table|not authorized|prohibited")


@pytest.mark.parametrize("module", ["fts3", "fts4", "rtree(id, a, b)", "fts4aux(x)"])
def test_virtual_tables_of_other_modules_are_no_tables(tmp_path, module):
    harness = make_harness(tmp_path)
    harness.update(keep=[make_view()])
    harness.store.engine(harness.config).close()
    planted = f"CREATE VIRTUAL TABLE evil USING {module}"
    script = (
        "PRAGMA writable_schema = 1;"
        f"INSERT INTO sqlite_schema VALUES ('table', 'evil', 'evil', 0, '{planted}')"
    )
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"
    path = harness.config.online_store.path
    subprocess.run([sys.executable, "-c", code, path, script], check=True)
    with pytest.raises(errors.InvalidInputError, match=r"no such module|prohibited"):
        harness.store.engine(harness.config).sql("SELECT * FROM evil", [])


def test_what_people_use_is_on_the_lists(shop_store):
    def sql(statement, *parameters):
        return feast_vector.sql(shop_store, statement, parameters, as_dict=True)

    [number] = sql("SELECT table_id FROM _feast_vector_tables WHERE view = 'items'")["table_id"]
    texts = f"_feast_vector_text_{number}"
    assert sql(
        f"SELECT id, bm25({texts}) < 0 AS ranks FROM {texts} JOIN shop_items "
        f"ON row_id = {texts}.rowid WHERE {texts} MATCH ? ORDER BY bm25({texts}), id LIMIT 1",
        "blue",
    ) == {"id": [0], "ranks": [1]}
    assert sql("SELECT value FROM json_each('[1, 2]')") == {"value": [1, 2]}
    assert sql("SELECT json_extract('{\"a\": 3}', '$.a') AS a, '{\"b\": 4}' ->> 'b' AS b") == {
        "a": [3],
        "b": [4],
    }
    assert "title" in sql("SELECT name FROM pragma_table_info('shop_items')")["name"]
    assert "title" in sql("PRAGMA table_info(shop_items)")["name"]
    assert sql("SELECT count(*) AS n FROM sqlite_schema WHERE name = 'shop_items'") == {"n": [1]}
    assert sql(
        "SELECT id, rank() OVER (ORDER BY price DESC) AS r, upper(title) AS t, round(price, 1) AS p,"
        " date(event_timestamp / 1000000, 'unixepoch') IS NOT NULL AS d, coalesce(stock, -1) AS s,"
        " group_concat(title) OVER () IS NULL AS g, iif(id > 1, 'a', 'b') AS i"
        " FROM shop_items WHERE title LIKE '%red' AND title GLOB '*1*' ORDER BY id LIMIT 1"
    )["id"] == [1]


def test_an_answer_has_a_limit_on_rows_and_bytes(shop_store):
    endless = ENDLESS.format("i")
    refused(shop_store, endless, match=r"more than 1000000 rows \(`max_rows`\)")
    refused(shop_store, endless, match=r"more than 5 rows", max_rows=5)
    statement = "SELECT title FROM shop_items"
    assert feast_vector.sql(shop_store, statement, max_rows=SHOP_ROWS).num_rows == SHOP_ROWS
    refused(shop_store, statement, match=f"more than {SHOP_ROWS - 1} rows", max_rows=SHOP_ROWS - 1)
    wide = ENDLESS.format("zeroblob(1000000)")
    refused(shop_store, wide, match=r"more than 268435456 bytes \(`max_bytes`\) after \d+ rows")
    refused(shop_store, wide, match="more than 3000000 bytes", max_bytes=3_000_000)


def test_a_value_has_a_limit_stored_or_not(shop_store):
    for made in (
        "zeroblob(20000000)",
        "hex(randomblob(9000000))",
        "replace(hex(zeroblob(8000000)), '00', 'aaaa')",
    ):
        refused(
            shop_store, f"SELECT length({made} || '')", match=r"16777216 bytes \(`max_length`\)"
        )
    refused(shop_store, "SELECT ?", "x" * 2000, match="1000 bytes", max_length=1000)
    big = feast_vector.sql(shop_store, "SELECT zeroblob(20000000) AS z", max_length=30_000_000)
    assert len(big["z"][0].as_py()) == 20_000_000
    # A limit is of one call.
    refused(shop_store, "SELECT zeroblob(20000000)", match="max_length")


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("SELECT " + "abs(" * 600 + "1" + ")" * 600, "depth"),
        ("SELECT " + "+".join("1" * 900), "depth"),
        (" UNION ALL ".join(["SELECT 1"] * 300), "too many terms"),
        ("SELECT 'x' LIKE '" + "%a" * 800 + "'", "too complex"),
        ("SELECT '" + "x" * 1_100_000 + "'", "too long|max_length"),
        ("SELECT " + ", ".join(["1"] * 2100), "too many columns"),
    ],
)
def test_statements_out_of_all_proportion_are_refused(shop_store, statement, match):
    refused(shop_store, statement, match=match)


def test_a_statement_has_a_deadline(shop_store):
    refused(shop_store, ENDLESS.format("count(*)"), match=r"0.2 seconds \(`timeout`\)", timeout=0.2)
    # It is of one call.
    assert feast_vector.sql(shop_store, "SELECT 1 AS one").num_rows == 1


def test_ctrl_c_stops_a_statement(shop_store):
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        feast_vector.sql(shop_store, ENDLESS.format("count(*)"), timeout=None)
    timer.join()
    assert feast_vector.sql(shop_store, "SELECT 1 AS one").num_rows == 1


def test_a_text_that_is_not_utf8_is_named(shop_store):
    refused(shop_store, "SELECT CAST(x'ff' AS TEXT) AS t", match="column 't' of row 1 is a text")
