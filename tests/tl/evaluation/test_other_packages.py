"""The real packages, where they are installed; `test_evaluate` has a fake."""

import importlib

import numpy as np
import pytest

from scmix.tl._evaluation.cells import read_cells
from scmix.tl._evaluation.folds import Fold
from scmix.tl._evaluation.other_packages import OTHERS
from scmix.tl._evaluation.splits import Split


@pytest.mark.parametrize("name", OTHERS)
def test_real_package_tells_types_in_category_order(name, make_cells):
    predict, modules, _ = OTHERS[name]
    for module in modules:
        pytest.importorskip(module)
        importlib.import_module(module)
    adata = make_cells(90, signal=20.0)
    cells = read_cells(
        adata, "cell_type", groups=None, layer=None, allow_noninteger=False, fewest=2
    )
    fold = Fold(cells, Split(0, 0, np.arange(60), np.arange(60, 90)))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    chances = predict(fold)
    assert chances.shape == (30, 3)
    assert (chances.argmax(axis=1) == cells.codes[60:]).mean() > 0.9
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    if name != "SingleR":
        np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(predict(fold), chances, atol=1e-5)
