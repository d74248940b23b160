"""Several processes on one store behave like a dict."""

import model
import pytest


@pytest.mark.parametrize("seed", [1, 2])
def test_processes_behave_like_a_dict(seed):
    """A failure names its seed: `python tests/python/model.py SEED STEPS` replays it."""
    model.run(seed, 25)


def test_a_lost_row_would_be_seen():
    """The model is not asleep: a row too many in it is an error."""

    class Wrong(model.Run):
        def take(self, ids, version, ttl):
            super().take([*ids, model.ROWS + 99], version, ttl)

    with pytest.raises(AssertionError, match=f"row {model.ROWS + 99}"):
        model.run(1, 1, kind=Wrong)
