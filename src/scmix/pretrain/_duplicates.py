"""Cells that were met before: equal in content, or equal in name."""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp


@dataclass
class SeenCells:
    """Cells met so far, by content and by name."""

    content: set[bytes] = field(default_factory=set)
    names: set[tuple[str, str]] = field(default_factory=set)

    def first_time(self, hashes: np.ndarray, names: list[tuple[str, str]] | None) -> np.ndarray:
        """Whether each cell is new. A cell is remembered by both its content and its name."""
        new = np.ones(len(hashes), bool)
        for i, digest in enumerate(map(bytes, hashes)):
            new[i] = digest not in self.content and (names is None or names[i] not in self.names)
            self.content.add(digest)
            if names is not None:
                self.names.add(names[i])
        return new


def content_hashes(counts: sp.csr_matrix, tokens: np.ndarray) -> np.ndarray:
    """128 bits for each cell that depend on its genes and counts, not on their order."""
    gene = tokens[counts.indices].astype(np.uint64)
    # of the same width whatever the type in the file
    count = counts.data.astype(np.float64).view(np.uint64)
    halves = []
    for salt in (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)):
        mixed = np.zeros(gene.size + 1, np.uint64)
        np.cumsum(_mix(_mix(gene + salt) ^ count), out=mixed[1:])  # wraps around, as it may
        halves.append(mixed[counts.indptr[1:]] - mixed[counts.indptr[:-1]])
    return np.stack(halves, axis=1)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
