"""Vectors of many cells between two readings of them: in a file where they are large."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from tempfile import SpooledTemporaryFile

import numpy as np

from .._errors import ResourceError

CELLS_AT_ONCE = 16_384
_IN_MEMORY = 1 << 24  # bytes; more are written to a file without a name


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors that are written once, in order, and read some at a time.

    Parameters
    ----------
    file
        Holds them one behind the other, and is gone with the last object that reads it.
    width
        Numbers of a vector.
    dtype
        Of its numbers.
    rows
        Which of those in the file these are, ascending.
    """

    file: SpooledTemporaryFile
    width: int
    dtype: np.dtype
    rows: np.ndarray

    @classmethod
    def of(cls, parts: Iterable[np.ndarray], width: int) -> "Vectors":
        """Write them; all parts have one dtype."""
        file = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115, read by what is returned
        n, dtype = 0, np.dtype(np.float32)
        for part in parts:
            dtype = part.dtype
            try:
                file.write(part.tobytes())
            except OSError as error:
                raise ResourceError(
                    f"Could not keep the vectors of more than {n:,} cells in a temporary file: "
                    f"{error.strerror}. Let TMPDIR name a folder with more room."
                ) from error
            n += len(part)
        return cls(file, width, dtype, np.arange(n))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: np.ndarray) -> "Vectors":
        """Those of some of the cells, by a mask; in the same file."""
        return replace(self, rows=self.rows[which])

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """First cell and vectors of some consecutive cells at a time."""
        done = 0
        while done < len(self):
            first = int(self.rows[done])
            stop = int(np.searchsorted(self.rows, first + CELLS_AT_ONCE))
            rows = self.rows[done:stop]
            yield done, self._read(first, int(rows[-1]) + 1)[rows - first]
            done = stop

    def finite(self) -> np.ndarray:
        """Whether each cell has a vector: NaN stands for none."""
        parts = [np.isfinite(some[:, 0]) for _, some in self.blocks()]
        return np.concatenate([np.empty(0, bool), *parts])

    def few(self, cells: np.ndarray) -> np.ndarray:
        """Vectors of a few cells, in any order."""
        found = np.empty((len(cells), self.width), self.dtype)
        for one, row in zip(found, self.rows[cells].tolist(), strict=True):
            one[...] = self._read(row, row + 1)[0]
        return found

    def _read(self, first: int, last: int) -> np.ndarray:
        size = self.width * self.dtype.itemsize
        self.file.seek(first * size)
        flat = np.frombuffer(self.file.read((last - first) * size), self.dtype)
        return flat.reshape(-1, self.width)


def gathered(parts: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """First cell and vectors of larger parts: `CELLS_AT_ONCE` cells or more, but for the last."""
    held: list[np.ndarray] = []
    start = n_held = 0
    for _, vectors in parts:
        held.append(vectors)
        n_held += len(vectors)
        if n_held >= CELLS_AT_ONCE:
            yield start, np.concatenate(held)
            start, held, n_held = start + n_held, [], 0
    if held:
        yield start, np.concatenate(held)


def in_memory(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """First cell and vectors of some consecutive cells at a time, of those that are there."""
    for first in range(0, len(vectors), CELLS_AT_ONCE):
        yield first, vectors[first : first + CELLS_AT_ONCE]
