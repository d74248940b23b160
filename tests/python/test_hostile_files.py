"""Files and folders that somebody else put beside the database: refused, left alone, private."""

import json
import os
import stat
import struct
import zlib
from pathlib import Path

import pytest
from conftest import make_harness, sql_elsewhere
from feast_vector import _core, errors
from indexing import engine_and_view, fill, find, vectors
from pydantic import ValidationError


@pytest.fixture
def harness(tmp_path):
    """A store whose indexes are built when the test says so."""
    return make_harness(tmp_path, index_builds="on_demand")


def database(harness):
    return Path(harness.config.repo_path or "", harness.config.online_store.path)


def index_folder(harness):
    return Path(f"{database(harness)}.index")


def mode(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_link_in_the_place_of_the_index_folder_is_neither_used_nor_emptied(harness, tmp_path):
    fill(harness, vectors(2500))
    engine, view = engine_and_view(harness)
    victim = tmp_path / "victim"
    victim.mkdir()
    ours = {"important.tmp", "important.seg", "1-2-0123456789abcdef.seg"}
    for name in ours:
        (victim / name).write_text("precious")
    index_folder(harness).symlink_to(victim)
    with pytest.raises(errors.StorageError, match=r"index.*symbolic link; remove it"):
        engine.optimize(view)
    with pytest.warns(RuntimeWarning, match="symbolic link"):
        engine.drop_project(harness.config.project)
    assert names(victim) == ours


def test_a_sweep_deletes_only_what_a_build_made(harness, tmp_path):
    fill(harness, vectors(2500))
    engine, view = engine_and_view(harness)
    engine.optimize(view)
    folder = index_folder(harness)
    stays = ["notes.seg", "notes.tmp", "1-1-short.seg", "x-1-0123456789abcdef.seg", "staging-1.tmp"]
    goes = ["9-9-0123456789abcdef.seg", "9-9-0123456789abcdef.tmp", "staging-0123456789abcdef.tmp"]
    for name in [*stays, *goes]:
        (folder / name).write_text("")
    (folder / "8-8-0123456789abcdef.seg").symlink_to(tmp_path)
    (folder / "7-7-0123456789abcdef.seg").mkdir()
    engine.optimize(view)
    left = names(folder)
    assert left >= {*stays, "8-8-0123456789abcdef.seg", "7-7-0123456789abcdef.seg"}
    assert not left & set(goes)


@pytest.mark.parametrize("lie", ["name", "pipe", "link"])
def test_a_manifest_that_leads_elsewhere_is_damage_and_waits_for_nothing(harness, tmp_path, lie):
    rows = vectors(2500)
    fill(harness, rows)
    engine, view = engine_and_view(harness)
    engine.optimize(view)
    [file] = index_folder(harness).glob("*.seg")
    engine.close()
    if lie == "name":
        os.mkfifo(tmp_path / "pipe")
        sql_elsewhere(harness, f"UPDATE _feast_vector_segments SET file = '{tmp_path / 'pipe'}'")
    else:
        file.rename(tmp_path / "moved.seg")
        os.mkfifo(file) if lie == "pipe" else file.symlink_to(tmp_path / "moved.seg")
    with pytest.warns(RuntimeWarning, match="answers stay right"):
        found, _ = find(harness, rows[7])
    assert found[0][0] == 7
    assert find(harness, rows[7], exact=True)[0] == found


def test_backup_and_verify_open_nothing_that_a_manifest_leads_to(harness, tmp_path):
    rows = vectors(2500)
    fill(harness, rows)
    engine, view = engine_and_view(harness)
    engine.optimize(view)
    [file] = index_folder(harness).glob("*.seg")
    # A segment, checksums and all, outside of the index folder.
    elsewhere = tmp_path / "elsewhere.seg"
    elsewhere.write_bytes(file.read_bytes())
    sql_elsewhere(harness, f"UPDATE _feast_vector_segments SET file = '{elsewhere}'")
    backup = json.loads(_core.backup(engine, tmp_path / "backup", replace=False))
    assert backup["missing_index_files"] == [str(elsewhere)]
    assert not backup["index_files"]
    report = json.loads(_core.verify(engine))
    [finding] = report["findings"]
    assert "a build gives no file such a name" in finding["message"]


@pytest.mark.parametrize("suffix", [".lock", ".index.lock"])
def test_a_lock_file_is_not_opened_through_a_link(harness, tmp_path, suffix):
    victim = tmp_path / "victim"
    Path(f"{database(harness)}{suffix}").symlink_to(victim)
    with pytest.raises(errors.StorageError, match=r"lock file.*symbolic link"):
        fill(harness, vectors(10))
        engine, view = engine_and_view(harness)
        engine.optimize(view)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("given", "files", "folder"), [(None, 0o600, 0o700), ("0660", 0o660, 0o770)]
)
def test_the_database_and_all_beside_it_are_private_unless_told(tmp_path, given, files, folder):
    harness = make_harness(tmp_path / "repo", index_builds="on_demand", file_mode=given)
    umask = os.umask(0o022)
    try:
        fill(harness, vectors(2500))
        engine, view = engine_and_view(harness)
        engine.optimize(view)
    finally:
        os.umask(umask)
    beside = [
        f"{database(harness)}{suffix}" for suffix in ("", "-wal", "-shm", ".lock", ".index.lock")
    ]
    beside += index_folder(harness).glob("*")
    assert {mode(path) for path in beside} == {files}
    assert mode(index_folder(harness)) == folder


def test_permissions_that_are_there_stay(harness, tmp_path):
    fill(harness, vectors(10))
    database(harness).chmod(0o644)
    engine, _ = engine_and_view(harness)
    engine.close()
    harness = make_harness(tmp_path, index_builds="on_demand", file_mode="0660")
    fill(harness, vectors(10))
    assert mode(database(harness)) == 0o644


@pytest.mark.parametrize("given", ["0700", "660x", "rw", 660, "0060", True, "04660"])
def test_a_file_mode_that_is_none_is_refused(harness, given):
    with pytest.raises(ValidationError, match="file_mode"):
        type(harness.config.online_store)(file_mode=given)


@pytest.mark.parametrize("given", ["0660", "660", 0o660])
def test_a_file_mode_may_be_what_yaml_makes_of_it(harness, given):
    section = type(harness.config.online_store)(file_mode=given)
    assert section.file_mode == 0o660
    assert type(section)(**section.model_dump()).file_mode == 0o660


# Offset in the header, format, and what is put there instead.
HEADER_LIES = {
    "table": (24, "<q", 77),
    "column": (32, "<I", 77),
    "length": (36, "<I", 255),
    "no length": (36, "<I", 0),
    "element": (40, "<I", 8),
    "metric": (44, "<I", 0),
    "no metric": (44, "<I", 9),
    "codes": (48, "<Q", 2**32),
    "rows": (56, "<Q", 2**63),
    "one row more": (56, "<Q", 2501),
    "lists": (64, "<Q", 0),
    "blocks": (72, "<Q", 1),
    "disorder": (96, "<I", 0),
    "bytes": (104, "<Q", 4096),
    "keys": (112, "<Q", 2**40),
}


@pytest.mark.parametrize("lie", HEADER_LIES)
def test_an_index_file_that_lies_with_a_right_checksum_is_damage(harness, lie):
    rows = vectors(2500)
    fill(harness, rows)
    engine, view = engine_and_view(harness)
    engine.optimize(view)
    truth = find(harness, rows[7], exact=True)[0]
    [path] = index_folder(harness).glob("*.seg")
    engine.close()
    file = bytearray(path.read_bytes())
    offset, kind, number = HEADER_LIES[lie]
    struct.pack_into(kind, file, offset, number)
    struct.pack_into("<I", file, 12, zlib.crc32(file[16:4096]))
    path.unlink()
    path.write_bytes(file)
    with pytest.warns(RuntimeWarning, match="answers stay right"):
        found = find(harness, rows[7])[0]
    assert found == truth
    engine.optimize(view)
    assert find(harness, rows[7])[0] == truth


@pytest.mark.parametrize(
    "edit",
    ["dead = x'ffffffffffffffffffff01'", "dead = 'text'", "report = zeroblob(2000000)", "file = 7"],
)
def test_a_manifest_that_cannot_be_read_is_damage(harness, edit):
    rows = vectors(2500)
    fill(harness, rows)
    engine, view = engine_and_view(harness)
    engine.optimize(view)
    engine.close()
    sql_elsewhere(harness, f"UPDATE _feast_vector_segments SET {edit}")
    with pytest.warns(RuntimeWarning, match="answers stay right"):
        found = find(harness, rows[7])[0]
    assert found == find(harness, rows[7], exact=True)[0]
    engine.optimize(view)
    assert find(harness, rows[7])[0][0][0] == 7


def sealed(file):
    """An index file, its checksums made right again."""
    starts = range(4096, len(file), 64)
    chunks = next(s for s in starts if s + -(-(s - 4096) // 65536) * 4 == len(file))
    for number, start in enumerate(range(4096, chunks, 65536)):
        crc = zlib.crc32(file[start : min(start + 65536, chunks)])
        struct.pack_into("<I", file, chunks + 4 * number, crc)
    struct.pack_into("<I", file, 100, zlib.crc32(file[chunks:]))
    struct.pack_into("<I", file, 12, zlib.crc32(file[16:4096]))
    return bytes(file)


def test_keys_of_an_index_that_are_none_are_damage(harness):
    rows = vectors(2500)
    fill(harness, rows)
    engine, view = engine_and_view(harness)
    engine.optimize(view)
    truth = find(harness, rows[7], exact=True)[0]
    [path] = index_folder(harness).glob("*.seg")
    engine.close()
    file = bytearray(path.read_bytes())
    assert sealed(bytearray(file)) == bytes(file)
    keys = file.find(sql_elsewhere_key(harness))
    assert keys > 0
    file[keys : keys + 8] = b"\xff" * 8
    path.unlink()
    path.write_bytes(sealed(file))
    everything = len(rows)
    with pytest.warns(RuntimeWarning, match="answers stay right"):
        found = find(harness, rows[7], top_k=everything)[0]
    assert len(found) == everything
    assert found[: len(truth)] == truth


def sql_elsewhere_key(harness):
    """The key of the first row, as the column has it."""
    [[key]] = sql_elsewhere(
        harness, f"SELECT hex(entity_key) FROM {harness.config.project}_items WHERE row_id = 1"
    )
    return bytes.fromhex(key)


@pytest.mark.parametrize("kind", ["VIEW", "VIRTUAL TABLE"])
@pytest.mark.parametrize("name", ["shop_items", "_feast_vector_changes"])
def test_what_stands_in_a_tables_place_is_refused(harness, tmp_path, kind, name):
    fill(harness, vectors(10))
    engine, _ = engine_and_view(harness)
    engine.close()
    sql_elsewhere(harness, f"ALTER TABLE {name} RENAME TO elsewhere")
    body = "AS SELECT * FROM elsewhere" if kind == "VIEW" else "USING fts5(entity_key)"
    sql_elsewhere(harness, f"CREATE {kind} {name} {body}")
    another = make_harness(tmp_path)
    with pytest.raises(errors.FormatError, match=f"'{name}' is a view or a virtual table"):
        fill(another, vectors(10))


def test_a_trigger_in_the_file_does_not_run(harness):
    fill(harness, vectors(10))
    engine, _ = engine_and_view(harness)
    engine.close()
    for event in ("INSERT", "UPDATE", "DELETE"):
        sql_elsewhere(
            harness,
            f"CREATE TRIGGER planted_{event} AFTER {event} ON shop_items BEGIN "
            "DELETE FROM _feast_vector_meta; UPDATE shop_items SET title = 'owned'; END",
        )
    fill(harness, vectors(12), minute=1)
    assert (
        engine.sql("SELECT count(*) AS n FROM shop_items WHERE title = 'owned'", [])["n"][0].as_py()
        == 0
    )
    assert engine.sql("SELECT count(*) AS n FROM _feast_vector_meta", [])["n"][0].as_py() > 0
