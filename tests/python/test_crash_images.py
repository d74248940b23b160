"""Whatever moment a process ends at, what it had acknowledged is there, whole."""

import sys

import crash_images
import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="records calls of Linux's C library"
)

IMAGES = 60
"""Of each kind; `make soak` takes them all."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """What one workload did to its files."""
    return crash_images.record(tmp_path_factory.mktemp("recorded"), 1, "full")


def test_the_record_has_what_matters(recorded):
    operations = {(operation, path.rpartition(".")[2]) for operation, path, _, _ in recorded}
    for kind in ("db", "db-wal", "tmp"):
        assert (crash_images.WRITE, kind) in operations
        assert (crash_images.SYNC, kind) in operations
    renamed = [to for operation, _, _, to in recorded if operation == crash_images.RENAME]
    assert any(to.endswith(b".seg") for to in renamed)


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power cut"])
def test_acknowledged_batches_survive(recorded, tmp_path, power):
    lost, seen = crash_images.failures(recorded, 1, tmp_path, IMAGES, "full", power=power)
    assert not lost
    assert seen > IMAGES // 2


def test_a_loss_would_be_seen(tmp_path):
    """Without syncs, a cut of the power takes acknowledged batches, as the README says."""
    log = crash_images.record(tmp_path, 1, "off")
    lost, _ = crash_images.failures(log, 1, tmp_path, 20, "off", power=True)
    assert lost
