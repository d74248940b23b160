"""Files that are not there, are not where they were, or have several names."""

import sys

import pytest
from conftest import at, integer, key, make_harness, make_view, text
from feast_vector import _core

unix_only = pytest.mark.skipif(sys.platform == "win32", reason="files in use are not moved there")


def test_a_mistyped_path_creates_nothing_and_is_said_once(tmp_path):
    harness = make_harness(tmp_path, path=str(tmp_path / "no" / "such" / "vector.db"))
    view = make_view()
    with pytest.warns(RuntimeWarning, match=r"no/such/vector\.db' does not exist") as said:
        found = [harness.read(view, key(id=1)) for _ in range(3)]
    assert found == [[(None, None)]] * 3
    assert len(said) == 1
    assert not (tmp_path / "no").exists()


@unix_only
def test_another_working_folder_changes_nothing(tmp_path, monkeypatch):
    for name in ["a", "b"]:
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    harness = make_harness(tmp_path)
    engine = _core.Engine("data/online.db")
    monkeypatch.setattr(harness.store, "engine", lambda config: engine)
    view = make_view()
    harness.write(view, (key(id=1), {"name": text("x"), "number": integer(1)}, at(0)))
    monkeypatch.chdir(tmp_path / "b")
    assert harness.read(view, key(id=1))[0][1]["number"] == integer(1)
    harness.write(view, (key(id=2), {"name": text("y"), "number": integer(2)}, at(0)))
    assert not (tmp_path / "b" / "data").exists()
    assert [row[1]["number"] for row in harness.read(view, key(id=1), key(id=2))] == [
        integer(1),
        integer(2),
    ]


@unix_only
def test_a_folder_that_is_gone_is_said_to_be_and_not_made_again(tmp_path):
    harness = make_harness(tmp_path, path=str(tmp_path / "data" / "online.db"))
    view = make_view()
    harness.write(view, (key(id=1), {"name": text("x"), "number": integer(1)}, at(0)))
    (tmp_path / "data").rename(tmp_path / "aside")
    with pytest.warns(RuntimeWarning, match="is gone since it was opened"):
        assert harness.read(view, key(id=1)) == [(None, None)]
    with pytest.raises(Exception, match="was there when the store was opened"):
        harness.write(view, (key(id=2), {"number": integer(2)}, at(0)))
    assert not (tmp_path / "data").exists()
    (tmp_path / "aside").rename(tmp_path / "data")
    assert harness.read(view, key(id=1))[0][1]["number"] == integer(1)


@unix_only
def test_names_of_one_file_share_its_lock(tmp_path):
    harness = make_harness(tmp_path)
    view = make_view()
    (tmp_path / "link.db").symlink_to("vector.db")
    other = make_harness(tmp_path, path=str(tmp_path / "link.db"))
    other.write(view, (key(id=1), {"name": text("x"), "number": integer(1)}, at(0)))
    assert harness.read(view, key(id=1))[0][1]["number"] == integer(1)
    assert not list(tmp_path.glob("link.db.*"))
