"""Heads without training: logistic regressions on what the frozen encoder gives, and on genes."""

import warnings
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression

from ..statistics import class_centroids, nearest_centroid

_STEPS = 200
_MOST_VOTERS, _LEVELS = 3_000, 20
_LENGTH = 30.0  # of a cell's votes, beside which the penalty is measured
_HIGHEST_F, _POWER, _FEWEST_CELLS = 20.0, 0.25, 3
_ABSENT = -30.0  # logit of a class without a training cell
_FACTORS = (-5.0, 3.0)  # logs of the least and the most that a term is multiplied by
_EVEN = 0.0015  # of log loss: what is to be gained before terms count unevenly


class Head(NamedTuple):
    """What gives the logits of a label key.

    Parameters
    ----------
    weight
        float32 (n_classes, n_dimensions).
    bias
        float32 (n_classes,).
    votes
        float32 (n_tokens, n_classes); None where genes do not vote.
    """

    weight: np.ndarray
    bias: np.ndarray
    votes: np.ndarray | None

    def logits(self, pooled: np.ndarray, genes: sp.csr_matrix | None) -> np.ndarray:
        """Logits float32 (n_cells, n_classes); NaN where the pooled vector is."""
        scores = pooled @ self.weight.T + self.bias
        return scores if self.votes is None else scores + genes @ self.votes


class Judged(NamedTuple):
    """What heads say of cells that they were not fitted on.

    All cells have a say in one thing: how much vectors count beside genes, a number for each key.

    Parameters
    ----------
    logits
        float32 (n_cells, n_classes); NaN for a cell whose class is in no other part.
    distances
        float32 (n_cells,): to the nearest class centroid of the cells of the other parts.
    """

    logits: np.ndarray
    distances: np.ndarray


class Probe:
    """Regularised logistic regression on vectors, and another on the expression of genes.

    The logits of the head are the sum of theirs. Fitted together, the many genes leave the vectors
    no say, which costs rare types most. How much each counts is chosen by cross-validation: the
    smallest log loss of cells that neither was fitted on, all classes weighing the same. Where that
    says little, they count alike: in cells of another species or assay, either may fail.

    Vectors are divided by one number: each dimension by its own spread, those that say little would
    count as much as the others. Of the genes, the most variable ones vote, penalised the less, the
    more they differ between the classes (F statistic).

    Parameters
    ----------
    pooled
        (n_cells, n_dimensions), of the encoder as it is.
    genes
        Expression, cells by tokens; None: genes do not vote.
    codes
        Class of each cell; each class occurs.
    n_classes
        Number of classes.
    balance
        Cells count by class size to the power of minus this.
    c
        Inverse strength of the penalty.
    """

    def __init__(
        self,
        pooled: np.ndarray,
        genes: sp.csr_matrix | None,
        codes: np.ndarray,
        n_classes: int,
        *,
        balance: float,
        c: float,
    ) -> None:
        self.pooled, self.genes, self.codes = pooled, genes, codes
        self.n_classes, self.balance, self.c = n_classes, balance, c
        self._terms = [self._on_vectors] if genes is None else [self._on_vectors, self._on_genes]

    def fit(self, parts: np.ndarray) -> tuple[Head, Judged]:
        """The head, and what cross-validation says.

        Parameters
        ----------
        parts
            Part of each cell: the logits of its cells are by heads fitted on the other parts.
        """
        terms, distances = self._crossed(parts)
        judged = np.isfinite(distances)
        shares = _shares(terms[:, judged], self.codes[judged])
        logits = np.tensordot(shares, terms, 1).astype(np.float32)
        fitted = [fit(np.arange(self.codes.size)) for fit in self._terms]
        return _sum(fitted, shares), Judged(logits, distances)

    def _crossed(self, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits of each term (n_terms, n_cells, n_classes) and distances; NaN: not judged."""
        terms = np.full((len(self._terms), self.codes.size, self.n_classes), np.nan)
        distances = np.full(self.codes.size, np.nan, np.float32)
        for part in np.unique(parts):
            kept, asked = np.flatnonzero(parts != part), np.flatnonzero(parts == part)
            asked = asked[np.isin(self.codes[asked], self.codes[kept])]
            if not asked.size:
                continue
            centroids = class_centroids(self.pooled[kept], self.codes[kept], self.n_classes)
            distances[asked] = nearest_centroid(self.pooled[asked], centroids)[1]
            genes = None if self.genes is None else self.genes[asked]
            for term, fit in zip(terms, self._terms, strict=True):
                term[asked] = fit(kept).logits(self.pooled[asked], genes)
        return terms, distances

    def _on_vectors(self, rows: np.ndarray) -> Head:
        pooled = self.pooled[rows]
        mean, scale = pooled.mean(axis=0), 1 / max(np.sqrt(pooled.var(axis=0).mean()), 1e-6)
        weight, bias = self._regression((pooled - mean) * scale, rows)
        weight = weight * scale
        return Head(weight, bias - weight @ mean, None)

    def _on_genes(self, rows: np.ndarray) -> Head:
        genes = self.genes[rows]  # type: ignore[index]
        used, factor = _voters(genes, self.codes[rows])
        table, bias = self._regression(genes[:, used] @ sp.diags_array(factor), rows)
        votes = np.zeros((genes.shape[1], self.n_classes))
        votes[used] = (table * factor).T
        return Head(np.zeros((self.n_classes, self.pooled.shape[1])), bias, votes)

    def _regression(
        self, features: np.ndarray | sp.csr_matrix, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights (n_classes, n_features) and biases; classes without a cell are never given."""
        present, codes = np.unique(self.codes[rows], return_inverse=True)
        weight = np.zeros((self.n_classes, features.shape[1]))
        bias = np.full(self.n_classes, _ABSENT)
        bias[present] = 0
        if present.size > 1:
            weight[present], bias[present] = _regression(features, codes, self.balance, self.c)
        return weight, bias


def _voters(genes: sp.csr_matrix, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that vote, and what their expression is multiplied by."""
    used = _variable(genes)
    used = used[np.bincount(genes.indices, minlength=genes.shape[1])[used] >= _FEWEST_CELLS]
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")  # genes without variance
        f = f_classif(genes[:, used].astype(np.float64), codes)[0] if used.size else np.empty(0)
    # a gene that is constant in every class has no variance but rounding, of either sign
    factor = np.abs(np.nan_to_num(f)).clip(max=_HIGHEST_F) ** _POWER
    squares = genes[:, used].power(2) @ factor**2
    return used, factor * _LENGTH / max(np.sqrt(squares.mean()), 1e-9)


def _variable(genes: sp.csr_matrix) -> np.ndarray:
    """The most variable genes; every gene where there are not more.

    As scanpy finds them by default: dispersion (variance / mean) of the counts per 10,000, as log,
    in standard deviations from the genes of a like mean.
    """
    detected = np.flatnonzero(genes.getnnz(axis=0) > 0)
    if detected.size <= _MOST_VOTERS:
        return detected
    counts = genes[:, detected].astype(np.float64).expm1()
    mean = np.asarray(counts.mean(axis=0)).ravel()
    variance = np.asarray(counts.power(2).mean(axis=0)).ravel() - mean**2
    dispersion = np.log(np.maximum(variance, 1e-12) / mean)
    level = np.log1p(mean)
    like = np.digitize(level, np.linspace(level.min(), level.max(), _LEVELS + 1)[1:-1], right=True)
    n = np.bincount(like)[like]
    middle = np.bincount(like, dispersion)[like] / n
    spread = np.sqrt(np.bincount(like, (dispersion - middle) ** 2)[like] / np.maximum(n - 1, 1))
    # a gene without its like counts as one standard deviation above
    score = np.where(n > 1, (dispersion - middle) / np.maximum(spread, 1e-12), 1.0)
    return np.sort(detected[np.argsort(-score, kind="stable")[:_MOST_VOTERS]])


def _shares(terms: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Factor of each term, 1 on average: smallest log loss of the sum, all classes weighing alike.

    How large the sum is, the temperature of the calibration sees to.
    """
    if len(terms) < 2 or not codes.size:
        return np.ones(len(terms))
    cost = 1 / np.bincount(codes)[codes]
    cost, rows = cost / cost.sum(), np.arange(codes.size)

    def loss(logs: np.ndarray) -> float:
        scores = np.tensordot(np.exp(logs), terms, 1)
        lost = cost @ (logsumexp(scores, axis=1) - scores[rows, codes])
        return float(lost + _EVEN * np.ptp(logs) ** 2)

    bounds = [_FACTORS] * len(terms)
    found = minimize(loss, np.zeros(len(terms)), method="L-BFGS-B", bounds=bounds)
    return np.exp(found.x) / np.exp(found.x).mean()


def _sum(heads: list[Head], shares: np.ndarray) -> Head:
    """The head whose logits are the sum of these heads' logits, each times its share."""
    weight = sum(share * head.weight for share, head in zip(shares, heads, strict=True))
    bias = sum(share * head.bias for share, head in zip(shares, heads, strict=True))
    votes = None if heads[-1].votes is None else (shares[-1] * heads[-1].votes).astype(np.float32)
    return Head(weight.astype(np.float32), bias.astype(np.float32), votes)


def _regression(
    features: np.ndarray | sp.csr_matrix, codes: np.ndarray, balance: float, c: float
) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.bincount(codes)
    weights = (sizes.mean() / sizes) ** balance
    model = LogisticRegression(C=c, max_iter=_STEPS, class_weight=dict(enumerate(weights)))
    with warnings.catch_warnings():  # a start need not be an optimum
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, codes)
    if sizes.size > 2:
        return model.coef_, model.intercept_
    return (  # of two classes, scikit-learn keeps the difference
        np.concatenate([-model.coef_, model.coef_]) / 2,
        np.concatenate([-model.intercept_, model.intercept_]) / 2,
    )
