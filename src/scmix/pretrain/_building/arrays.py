"""Arrays that grow on disk while they are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


class GrowingArray:
    """A 1-d npy file that is written piece by piece; its length is known at the end."""

    def __init__(self, path: Path, dtype: np.dtype | type) -> None:
        self.path, self.dtype, self.size = path, np.dtype(dtype), 0
        self._file = open(path, "wb")  # noqa: SIM115 (closed by `close`)
        self._write_header()
        self._start = self._file.tell()

    def append(self, values: np.ndarray) -> None:
        """Write values behind those written."""
        values = np.ascontiguousarray(values, self.dtype)
        self._file.write(values.data)
        self.size += values.size

    def close(self) -> None:
        """Write the length, and see that all is on disk."""
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._start:
            raise RuntimeError(f"The header of {self.path} has changed its length; report this.")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close without a length."""
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.size,)}
        # numpy leaves room for the first axis to grow, so the header keeps its length
        np.lib.format.write_array_header_1_0(self._file, header)


@contextmanager
def growing_arrays(folder: Path, dtypes: dict[str, Any]) -> Iterator[dict[str, GrowingArray]]:
    """Open several arrays in a folder, named ``<name>.npy``."""
    arrays = {}
    try:
        for name, dtype in dtypes.items():
            arrays[name] = GrowingArray(folder / f"{name}.npy", dtype)
        yield arrays
        for array in arrays.values():
            array.close()
    finally:
        for array in arrays.values():
            array.abandon()
