"""From logits to a label, a confidence, a set of labels, or "unknown"."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from .._errors import InputError
from .._warn import warn
from ..statistics import (
    Calibration,
    conformal_sets,
    conformal_threshold,
    distance_threshold,
    probabilities,
    strangeness,
)

Reject = Literal["conformal", "distance"]
Sets = Literal["lac", "aps"]


@dataclass(frozen=True, eq=False)
class Rule:
    """How the labels of one key are decided; made before any cell is read.

    Parameters
    ----------
    temperature
        Divides logits.
    reject
        Threshold of LAC ("conformal", a number or one for each class) or of the distance.
    sets
        Method and threshold of the sets that are kept; None: none.
    """

    temperature: float
    reject: tuple[Reject, Any] | None
    sets: tuple[Sets, Any] | None

    def rejected(self, chances: np.ndarray, distances: np.ndarray | None) -> np.ndarray:
        """Whether a cell is of no known class (n_cells,). Cells without a vector are not."""
        if self.reject is None:
            return np.zeros(len(chances), dtype=bool)
        kind, threshold = self.reject
        if kind == "distance":
            return np.asarray(distances) > threshold  # NaN is not
        empty = ~conformal_sets(chances, threshold).any(axis=1)
        return empty & np.isfinite(chances[:, 0])

    def thresholds(self) -> dict[str, Any]:
        """What is noted of them."""
        found = {}
        if self.reject is not None:
            found["reject"] = self.reject[1]
        if self.sets is not None:
            found["sets"] = self.sets[1]
        return found


def make_rule(
    calibration: Calibration | None,
    label_key: str,
    classes: np.ndarray,
    *,
    reject: Reject | None,
    sets: Sets | None,
    alpha: float,
    by_class: bool,
) -> Rule:
    """Thresholds from the cells that the classifier was calibrated on."""
    if calibration is None:
        if reject or sets:
            raise InputError(
                f"Found no calibration of {label_key!r} in the classifier, which reject= and sets= "
                "need. Train it again with cells set aside (scmix.tl.fine_tune(..., groups=))."
            )
        warn(
            f"The classifier was not calibrated for {label_key!r}: its confidence is that of the "
            "training, and too high as a rule."
        )
        return Rule(1.0, None, None)
    chances, true = calibration.probabilities, calibration.labels
    rejecting: tuple[Reject, Any] | None = None
    if reject == "distance":
        rejecting = (reject, _distance(calibration, label_key, alpha))
    elif reject == "conformal":
        rejecting = (reject, conformal_threshold(chances, true, alpha, by_class=by_class))
    kept: tuple[Sets, Any] | None = None
    if sets is not None:
        kept = (sets, conformal_threshold(chances, true, alpha, sets, by_class=by_class))
    rule = Rule(calibration.temperature, rejecting, kept)
    _warn_too_few(rule, calibration, classes, alpha)
    return rule


def check_rules(reject: str | None, sets: str | None, by_class: bool) -> None:
    """Refuse what does not exist."""
    if reject is not None and reject not in get_args(Reject):
        hint = (
            " For APS sets beside the labels pass sets='aps'." if reject in ("aps", "lac") else ""
        )
        raise InputError(
            f"Found reject={reject!r}; expected None or one of {get_args(Reject)}.{hint}"
        )
    if sets is not None and sets not in get_args(Sets):
        raise InputError(f"Found sets={sets!r}; expected None or one of {get_args(Sets)}.")
    if by_class and sets is None and reject != "conformal":
        raise InputError("Found by_class=True without reject='conformal' or sets=; pass one.")


def likeliest(logits: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities, and the class of each cell; -1 without a vector."""
    chances = probabilities(logits, temperature)
    missing = ~np.isfinite(chances).all(axis=1)
    return chances, np.where(missing, -1, np.nan_to_num(chances).argmax(axis=1))


def _distance(calibration: Calibration, label_key: str, alpha: float) -> float:
    if calibration.distances is None or calibration.centroids is None:
        raise InputError(
            f"Found no distances in the calibration of {label_key!r}, which reject='distance' "
            "needs. Pass reject='conformal'."
        )
    known = strangeness(calibration, calibration.logits, calibration.distances)
    return distance_threshold(known, alpha)


def _warn_too_few(rule: Rule, calibration: Calibration, classes: np.ndarray, alpha: float) -> None:
    """Say where a threshold is infinite: with too few cells nothing can be ruled out."""
    least = int(np.ceil(1 / alpha - 1e-9)) - 1
    sizes = np.bincount(calibration.labels, minlength=len(classes))
    for threshold in rule.thresholds().values():
        if np.isinf(threshold).all():
            found = f"{calibration.n_cells} cells"
        elif np.isinf(threshold).any():
            few = np.flatnonzero(np.isinf(threshold))
            found = "few cells of " + ", ".join(f"{classes[c]} ({sizes[c]})" for c in few)
        else:
            continue
        warn(
            f"The classifier was calibrated on {found}; alpha={alpha} needs {least} or more. "
            "They cannot be ruled out for any cell."
        )
        return
