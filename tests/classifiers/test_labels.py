import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import InputError
from scmix.classifiers._labels import encode


def names(column, **options):
    labels = encode({"k": pd.Series(column)}, **options)
    return labels.classes["k"].tolist(), labels.codes[:, 0].tolist()


def test_classes_stand_in_category_order_not_in_order_of_appearance():
    column = pd.Categorical(["b", "c", "a", "b"], categories=["c", "a", "b", "unused"])
    assert names(column) == (["c", "a", "b"], [2, 0, 1, 2])


@given(st.permutations(["x", "y", "z", "x", "y"]), st.integers(0, 4))
def test_classes_do_not_depend_on_the_order_of_cells(values, missing):
    column = [None if i == missing else value for i, value in enumerate([*values, "x", "y", "z"])]
    classes, codes = names(column)
    assert classes == ["x", "y", "z"]
    assert [None if c < 0 else classes[c] for c in codes] == column


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([10, 9, 10], ["9", "10"]),
        ([10.0, np.nan, 9.0], ["9", "10"]),
        ([True, False], ["False", "True"]),
        (["b", 1, "a"], ["1", "a", "b"]),
        (pd.array(["b", None, "a"], dtype="string"), ["a", "b"]),
    ],
)
def test_columns_of_any_type(column, expected):
    assert names(column)[0] == expected


def test_rare_classes_are_left_out_and_named():
    column = ["a"] * 98 + ["b"] * 101 + ["c"]
    with pytest.warns(UserWarning, match=r"Left out 1 classes of 'k' with 0.5% .* or less: c"):
        classes, codes = names(column, rare_share=0.005)
    assert classes == ["a", "b"]
    assert codes[-1] == -1
    assert names(column)[0] == ["a", "b", "c"]


@pytest.mark.parametrize("label", ["unknown", "Unassigned", " "])
def test_names_for_cells_without_a_label_are_refused(label):
    with pytest.raises(InputError, match="means that a cell has none"):
        names(["a", "b", label])


@pytest.mark.parametrize("column", [["a", "a"], [None, None], ["a", None]])
def test_one_class_is_refused(column):
    with pytest.raises(InputError, match="expected at least two"):
        names(column)


def test_labels_that_read_alike_are_refused():
    with pytest.raises(InputError, match="both read '1'"):
        names([1, "1", "a"])


def test_several_keys_have_numbers_of_their_own():
    labels = encode({"a": pd.Series(["x", None, "y"]), "b": pd.Series(["q", "p", None])})
    assert labels.codes.tolist() == [[0, 1], [-1, 0], [1, -1]]
    assert labels.labelled.all()
