"""Files and folders that somebody else put beside the database: refused, left alone, private."""

import os
import stat
from pathlib import Path

import pytest
from conftest import make_harness, sql_elsewhere
from feast_vector import errors
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
