import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scmix.batches import Sequences
from scmix.classifiers._stream import Stream


def make(n, codes=None, **options):
    cells = Sequences.from_list([[2, 3 + i % 5] for i in range(n)])
    codes = np.zeros((n, 1), np.int32) if codes is None else codes
    return Stream(cells, codes, np.array([0, 1]), 8, **options)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3))
def test_an_epoch_holds_every_cell_once_the_last_included(n, batch_size, epoch):
    stream = make(n, batch_size=batch_size)
    steps = range(epoch * stream.steps_per_epoch, (epoch + 1) * stream.steps_per_epoch)
    seen = np.concatenate([stream.rows(step) for step in steps])
    assert np.array_equal(np.sort(seen), np.arange(n))


def test_two_processes_share_an_epoch():
    streams = [make(11, batch_size=2, rank=rank, world=2) for rank in (0, 1)]
    steps = range(streams[0].steps_per_epoch)
    seen = [row for stream in streams for step in steps for row in stream.rows(step)]
    assert set(seen) == set(range(11))


def test_a_batch_depends_on_seed_and_step_only():
    one, other = make(20, batch_size=3, seed=5), make(20, batch_size=3, seed=5)
    one.rows(0)
    assert np.array_equal(one.rows(9), other.rows(9))
    assert not np.array_equal(one.rows(9), make(20, batch_size=3, seed=6).rows(9))


def test_balanced_draws_make_classes_equally_frequent():
    codes = np.array([0] * 90 + [1] * 10, np.int32)[:, None]
    stream = make(100, codes, batch_size=100, balanced=True)
    drawn = np.concatenate([stream.rows(step) for step in range(30)])
    assert 0.45 < (codes[drawn, 0] == 1).mean() < 0.55
