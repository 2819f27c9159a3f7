"""From predictions to the rows of the table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ... import metrics, statistics
from .folds import Fold
from .methods import Method
from .splits import Design

SCORES = ("accuracy", "balanced_accuracy", "macro_f1")
CONFIDENCE = ("ece", "brier", "aurc")
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a method predicted with one seed.

    Parameters
    ----------
    codes
        Predicted class of each tested cell, in the order of `Design.tested`.
    scores
        Accuracy and its relatives, calibration error, Brier score, area under risk-coverage.
    """

    codes: NDArray[np.intp]
    scores: dict[str, float]


def predict(method: Method, folds: Sequence[Fold]) -> NDArray[np.float64]:
    """Probabilities of all tested cells of a seed, in ascending order of their rows."""
    parts = [method.predict(fold) for fold in folds]
    order = np.argsort(np.concatenate([fold.test for fold in folds]), kind="stable")
    return np.concatenate(parts)[order]


def outcome(method: Method, probabilities: NDArray, truth: NDArray[np.intp]) -> Outcome:
    """Labels and scores of one seed.

    Parameters
    ----------
    method
        Says whether these are probabilities.
    probabilities
        Of the tested cells (n_tested, n_classes).
    truth
        Their classes.
    """
    codes = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    scores = metrics.label_scores(truth, codes, probabilities.shape[1])
    nan = float("nan")
    calibrated = method.calibrated
    scores["ece"] = (
        statistics.expected_calibration_error(probabilities, truth) if calibrated else nan
    )
    scores["brier"] = statistics.brier_score(probabilities, truth) if calibrated else nan
    scores["aurc"] = statistics.aurc(confidence, codes == truth)
    return Outcome(codes, scores)


def seed_rows(
    method: Method, design: Design, outcomes: dict[int, Outcome]
) -> list[dict[str, str | int | float]]:
    """A row of scores for every seed."""
    about: dict[str, str | int | float] = {
        "split": design.name,
        "representation": method.representation,
        "classifier": method.classifier,
    }
    return [{**about, "seed": seed, **made.scores} for seed, made in outcomes.items()]


class Table:
    """Rows of a design, all on the same cells and the same bootstrap draws.

    Parameters
    ----------
    design
        What was tested.
    truth
        Class of each tested cell.
    n_classes
        Number of classes.
    groups
        Donor of each tested cell; None: cells are drawn.
    """

    def __init__(
        self,
        design: Design,
        truth: NDArray[np.intp],
        n_classes: int,
        groups: NDArray[np.intp] | None,
    ) -> None:
        self._design, self._truth, self._n_classes = design, truth, n_classes
        self._units = None if groups is None else np.unique(groups, return_inverse=True)[1]

    def row(
        self,
        method: Method,
        outcomes: dict[int, Outcome],
        reference: dict[int, Outcome],
    ) -> dict[str, str | int | float]:
        """Mean, spread over seeds and interval of every score, and the lead over the reference."""
        scores = pd.DataFrame([made.scores for made in outcomes.values()])
        draws, base = self._draws(outcomes), self._draws(reference)
        row = self._about(method)
        for name in SCORES:
            low, high = _interval(draws[name])
            row |= {name: scores[name].mean(), f"{name}_sd": _spread(scores[name])}
            row |= {f"{name}_low": low, f"{name}_high": high}
        row |= {name: scores[name].mean() for name in CONFIDENCE}
        low, high = _interval(draws["macro_f1"] - base["macro_f1"])
        lead = scores["macro_f1"].mean() - np.mean(
            [made.scores["macro_f1"] for made in reference.values()]
        )
        row |= {"lead": lead, "lead_low": low, "lead_high": high, "note": ""}
        return row

    def missing(self, method: Method) -> dict[str, str | int | float]:
        """The row of a method whose package is not installed."""
        nan = float("nan")
        names = [f"{name}{end}" for name in SCORES for end in ("", "_sd", "_low", "_high")]
        names += [*CONFIDENCE, "lead", "lead_low", "lead_high"]
        note = f"not installed: pip install {method.missing}"
        return self._about(method) | dict.fromkeys(names, nan) | {"note": note}

    def _about(self, method: Method) -> dict[str, str | int | float]:
        sizes = np.bincount(self._truth, minlength=self._n_classes)
        n_units = self._truth.size if self._units is None else int(self._units.max()) + 1
        return {
            "split": self._design.name,
            "representation": method.representation,
            "classifier": method.classifier,
            "kind": method.kind,
            "n_test": int(self._truth.size),
            "n_types": int((sizes > 0).sum()),
            "majority_rate": float(sizes.max() / sizes.sum()),
            "interval": f"{n_units} {'cells' if self._units is None else 'donors'}",
        }

    def _draws(self, outcomes: dict[int, Outcome]) -> dict[str, NDArray[np.float64]]:
        predicted = np.stack([made.codes for made in outcomes.values()])
        return metrics.bootstrap_label_scores(
            self._truth, predicted, self._n_classes, units=self._units
        )


def _interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _spread(values: pd.Series) -> float:
    return float(values.std()) if len(values) > 1 else float("nan")
