"""The two species, and what people call them."""

import re

import numpy as np
import pandas as pd

from ._errors import InputError

SPECIES = ("human", "mouse")

_SPECIES_NAMES = (  # lower case, letters and digits only
    {"human", "homosapiens", "hsapiens", "hs", "hsa", "9606", "ncbitaxon9606", "taxid9606"},
    {"mouse", "musmusculus", "mmusculus", "mm", "mmu", "10090", "ncbitaxon10090", "taxid10090"},
)


def species_code(value: object) -> int:
    """Code of a species (0 human, 1 mouse) from any of its usual names.

    Parameters
    ----------
    value
        Such as `"human"`, `"Homo sapiens"`, `"hs"`, `9606`, `"NCBITaxon:9606"`.

    Returns
    -------
    The code.

    Raises
    ------
    InputError
        The name is none of human or mouse.

    Examples
    --------
    >>> species_code("Homo sapiens"), species_code("NCBITaxon:10090")
    (0, 1)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    key = re.sub(r"[^a-z0-9]", "", str(value).lower())
    for code, names in enumerate(_SPECIES_NAMES):
        if key in names:
            return code
    raise InputError(f"Found species {value!r}; expected 'human' or 'mouse'.")


def species_codes(values: pd.Series | np.ndarray) -> np.ndarray:
    """Species code of every cell from a column of names.

    Parameters
    ----------
    values
        One name per cell, as in :func:`species_code`.

    Returns
    -------
    Int8 codes: 0 human, 1 mouse.

    Raises
    ------
    InputError
        A value is missing or none of human or mouse.

    Examples
    --------
    >>> species_codes(["mouse", "Homo sapiens"])
    array([1, 0], dtype=int8)
    """
    codes, names = pd.factorize(pd.Series(np.asarray(values, dtype=object)))
    if (codes < 0).any():
        raise InputError(
            f"Found {int((codes < 0).sum())} cells without a species (first: cell "
            f"{int(np.argmax(codes < 0))}). Expected 'human' or 'mouse' for each; fill them in."
        )
    return np.array([species_code(name) for name in names], np.int8)[codes]
