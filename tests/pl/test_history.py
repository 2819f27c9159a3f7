import numpy as np
import pandas as pd
import pytest

import scmix
from scmix._errors import InputError
from scmix.pl._history import make_curves

RECORDS = pd.DataFrame(
    {
        "step": [0, 2, 4, 4, 6, 8, 8],
        "epoch": [0, 0.5, 1, 1, 1.5, 2, 2],
        "loss": [np.nan, 0.9, 0.8, np.nan, 0.6, 0.5, np.nan],
        "validation_loss": [1.4, np.nan, np.nan, 0.7, np.nan, np.nan, 0.8],
        "validation_macro_f1": [0.3, np.nan, np.nan, 0.8, np.nan, np.nan, 0.7],
        "validation_accuracy": [0.4, np.nan, np.nan, 0.9, np.nan, np.nan, 0.9],
        "kept": [False, False, False, True, False, False, False],
    }
)


def test_curves():
    curves = make_curves(RECORDS)
    loss = curves[curves["curve"] == "training"]
    assert loss["epoch"].tolist() == [0.5, 1, 1.5, 2]
    assert loss["value"].tolist() == [0.9, 0.8, 0.6, 0.5]
    score = curves[curves["curve"] == "macro-F1"]
    assert (score["panel"] == "score").all()
    assert score.loc[score["kept"], ["epoch", "value"]].values.tolist() == [[1, 0.8]]


def test_the_figure_shows_them():
    figure = scmix.pl.history(RECORDS, return_fig=True)
    left, right = figure.axes
    names = [line.get_label() for line in left.get_lines()]
    assert names == ["training", "validation", "kept"]
    assert right.get_lines()[0].get_ydata().tolist() == [0.3, 0.8, 0.7]
    assert right.get_lines()[-1].get_xdata() == [1, 1]


def test_without_validation_there_is_a_loss_only():
    columns = ["step", "epoch", "loss"]
    curves = make_curves(RECORDS[columns])
    assert set(curves["curve"]) == {"training"}
    assert len(scmix.pl.history(RECORDS[columns], show=False)) == 2


def test_nothing_recorded_is_said():
    with pytest.raises(InputError, match="epochs=0"):
        scmix.pl.history(RECORDS.iloc[:0])
