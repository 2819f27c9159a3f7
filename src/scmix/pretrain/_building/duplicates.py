"""Cells that were met before: equal in content, or equal in name."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

BUCKET = 1 << 23  # hashes compared at once: about 400 MB while they are sorted

KEPT, SAME_COUNTS, SAME_NAME = 0, 1, 2


def name_hashes(family: str, names: Iterable[str]) -> np.ndarray:
    """128 bits for each name within a family, shape ``(n, 2)``, uint64."""
    start = hashlib.blake2b(family.encode() + b"\0", digest_size=16)
    digests = []
    for name in names:
        one = start.copy()
        one.update(name.encode())
        digests.append(one.digest())
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)


def met_before(hashes: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """Whether a hash occurred before: in its own array, or in an earlier one.

    Hashes are compared in buckets, so that memory does not grow with their number (but for one
    byte each).

    Parameters
    ----------
    hashes
        uint64, shape ``(n, 2)`` each, possibly on disk; None where nothing is to be compared.

    Returns
    -------
    Bool, shape ``(n,)`` for each array; empty for None.
    """
    sizes = [0 if one is None else len(one) for one in hashes]
    ends = np.cumsum(sizes)
    n_buckets = 1 + sum(sizes) // BUCKET
    repeated = np.zeros(int(ends[-1]) if sizes else 0, bool)
    for bucket in range(n_buckets):
        found, where = [], []
        for one, end, size in zip(hashes, ends, sizes, strict=True):
            if one is not None:
                rows = np.flatnonzero(one[:, 0] % np.uint64(n_buckets) == bucket)
                found.append(one[rows])
                where.append(rows + (end - size))
        if found:
            repeated[_not_first(np.concatenate(found), np.concatenate(where))] = True
    return np.split(repeated, ends[:-1])


def _not_first(hashes: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Those of ``where`` (which rises) whose hash an earlier one has too."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal ones stay in order
    equal = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    return where[order[1:][equal]]
