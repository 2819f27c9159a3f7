"""Vectors that are written once and read some at a time."""

import numpy as np
import pytest

from scmix._errors import ResourceError
from scmix.tl import _spool
from scmix.tl._spool import Vectors, gathered, in_memory


@pytest.fixture(params=[0, 1 << 20], ids=["on disk", "in memory"])
def size(request, monkeypatch):
    monkeypatch.setattr(_spool, "_IN_MEMORY", request.param or 1)
    monkeypatch.setattr(_spool, "CELLS_AT_ONCE", 4)
    return request.param


@pytest.fixture
def vectors():
    vectors = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)
    vectors[5] = np.nan
    return vectors


def joined(blocks):
    starts, parts = zip(*blocks, strict=True)
    np.testing.assert_array_equal(starts, np.cumsum([0, *map(len, parts)])[:-1])
    return np.concatenate(parts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_read_is_what_was_written(size, vectors, dtype):
    vectors = vectors.astype(dtype)
    kept = Vectors.of(np.array_split(vectors, 5), 3)
    assert len(kept) == 23
    for _ in range(2):  # it can be read again
        read = joined(kept.blocks())
        np.testing.assert_array_equal(read, vectors)
        assert read.dtype == dtype
    np.testing.assert_array_equal(kept.finite(), np.arange(23) != 5)
    np.testing.assert_array_equal(kept.few(np.array([7, 0, 7])), vectors[[7, 0, 7]])


def test_some_of_the_cells(size, vectors):
    kept = Vectors.of([vectors], 3)
    odd, late = np.arange(23) % 2 == 1, np.arange(11) > 6
    part = kept[odd]
    np.testing.assert_array_equal(joined(part.blocks()), vectors[odd])
    np.testing.assert_array_equal(joined(part[late].blocks()), vectors[odd][late])
    np.testing.assert_array_equal(part.few(np.array([2, 1])), vectors[odd][[2, 1]])
    assert max(len(block) for _, block in part.blocks()) <= 4
    assert not list(kept[np.zeros(23, bool)].blocks())


def test_no_cells(size):
    assert not len(Vectors.of([], 3))
    assert Vectors.of([], 3).finite().shape == (0,)


def test_parts_are_gathered(size, vectors):
    parts = [(i, vectors[i : i + 1]) for i in range(23)]
    sizes = [len(block) for _, block in gathered(parts)]
    assert sizes == [4, 4, 4, 4, 4, 3]
    np.testing.assert_array_equal(joined(gathered(parts)), vectors)
    np.testing.assert_array_equal(joined(in_memory(vectors)), vectors)


def test_a_full_disk_is_an_error_that_says_what_to_do(monkeypatch):
    class Full:
        def __init__(self, size):
            pass

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(_spool, "SpooledTemporaryFile", Full)
    with pytest.raises(ResourceError, match=r"No space left.*TMPDIR"):
        Vectors.of([np.zeros((2, 3))], 3)
