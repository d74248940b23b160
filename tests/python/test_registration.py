"""`type: vector` is known to Feast, whichever way it is imported, and costs nothing elsewhere."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHECK = """
from feast.repo_config import RepoConfig
config = RepoConfig(project='p', provider='local', registry='r.db', online_store={'type': 'vector'},
                    entity_key_serialization_version=3, batch_engine="vector")
print(type(config.online_store).__module__, type(config.batch_engine).__module__)
"""
MODULES = "feast_vector.online_store feast_vector.compute_engine"


def run(code, *flags, **environment):
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
            "PYTHONWARNINGS": os.environ["PYTHONWARNINGS"],  # conftest.py's
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    "first",
    [
        "",
        "import feast",
        "import feast_vector",
        "import feast.repo_config",
        "import feast, feast_vector",
    ],
)
def test_whoever_is_imported_first(first):
    assert run(first + CHECK)[0] == MODULES


@pytest.mark.parametrize(
    "path",
    ["feast_vector.VectorOnlineStore", "feast_vector.online_store.VectorOnlineStore"],
)
def test_class_paths_need_no_registration(path):
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'feast' not in repr(f)]\n"
        + CHECK.replace("'vector'", repr(path))
    )
    assert run(code)[0] == MODULES


def test_nothing_is_imported_before_feast_is():
    code = (
        "import sys; print([m for m in sys.modules if 'feast' in m],"
        "sum('_Finder' in repr(f) for f in sys.meta_path))"
    )
    assert run(code)[0] == "['_feast_vector_register'] 1"


def test_the_finder_leaves_once_feast_is_there():
    code = "import feast, sys; print([f for f in sys.meta_path if '_feast_vector' in repr(f)])"
    assert run(code)[0] == "[]"


def test_failure_never_disturbs_the_interpreter(tmp_path):
    (tmp_path / "_feast_vector_register.py").write_text("raise RuntimeError('broken')")
    out, err = run("print('fine')", PYTHONPATH=str(tmp_path))
    assert (out, err) == ("fine", "")


def test_a_feast_that_cannot_be_imported_says_so_itself(tmp_path):
    (tmp_path / "feast").mkdir()
    (tmp_path / "feast" / "__init__.py").write_text("")
    (tmp_path / "feast" / "repo_config.py").write_text("raise ImportError('their own words')")
    code = "try:\n import feast.repo_config\nexcept ImportError as e:\n print(e)"
    assert run(code, PYTHONPATH=str(tmp_path))[0] == "their own words"
    (tmp_path / "feast" / "repo_config.py").write_text("unlike = 1")
    assert run("import feast.repo_config as r; print(r.unlike)", PYTHONPATH=str(tmp_path))[0] == "1"
    (tmp_path / "feast" / "repo_config.py").unlink()
    code = "try:\n import feast.repo_config\nexcept ModuleNotFoundError as e:\n print(e)"
    assert run(code, PYTHONPATH=str(tmp_path))[0] == "No module named 'feast.repo_config'"


def test_a_debug_build_warns():
    code = (
        "import warnings, importlib, feast_vector, feast_vector._core as core\n"
        "core.DEBUG_BUILD = {}\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    importlib.reload(feast_vector)\n"
        "print([str(w.message).partition(' and ')[0] for w in caught])"
    )
    assert run(code.format(False))[0] == "[]"
    assert run(code.format(True))[0] == "['feast_vector was built without optimisation']"


def test_uninstalling_leaves_nothing_behind():
    """Whatever the installation put outside the package is in its record."""
    import importlib.metadata

    files = {file.name for file in importlib.metadata.files("feast-vector") or []}
    assert {"feast_vector_register.pth", "_feast_vector_register.py"} <= files
    site = Path(
        next(
            f
            for f in importlib.metadata.files("feast-vector")
            if f.name == "feast_vector_register.pth"
        ).locate()
    )
    assert site.exists()


@pytest.mark.parametrize("path", ["", ":", "{}", "{}:"])
def test_nothing_of_the_working_directory_is_imported_at_start(tmp_path, path):
    for name in ("_feast_vector_register.py", "feast_vector/__init__.py"):
        planted = tmp_path / name
        planted.parent.mkdir(exist_ok=True)
        planted.write_text("open('was-here', 'w').close()")
    code = "import sys; print(sys.modules['_feast_vector_register'].__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", "PYTHONPATH": path.format(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not (tmp_path / "was-here").exists()
    assert Path(done.stdout.strip()).parent == Path(sysconfig.get_path("platlib"))
