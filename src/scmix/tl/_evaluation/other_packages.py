"""Methods of other packages, with the settings that their authors recommend."""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from inspect import signature

import numpy as np
import torch

from ..._errors import InputError
from .features import variable_genes
from .folds import N_TOP_GENES, Fold
from .methods import Method, Probabilities, class_codes, in_class_order

_SCANVI_EPOCHS = 20  # after scVI, as in the scvi-tools tutorials


def celltypist(fold: Fold) -> Probabilities:
    """Logistic regression on selected genes [Domínguez Conde 2022]; no majority voting."""
    from celltypist import annotate, train
    from sklearn.linear_model import LogisticRegression

    logging.getLogger("celltypist.logger").setLevel(logging.WARNING)
    known = fold.expression("train", logged=True)
    with _random_state_kept():  # its SGD draws from numpy's global state
        np.random.seed(fold.seed)  # noqa: NPY002
        model = train(
            known,
            labels="label",
            n_jobs=1,
            # its usual solver passes an option that scikit-learn 1.8 has dropped
            use_SGD="multi_class" not in signature(LogisticRegression).parameters,
            feature_selection=True,
            top_genes=min(300, known.n_vars - 1),  # 300 is its default
            check_expression=False,
        )
    found = annotate(fold.expression("test", logged=True), model=model)
    chances = found.probability_matrix
    return in_class_order(chances.to_numpy(), chances.columns, fold)


def singler(fold: Fold) -> Probabilities:
    """Correlation with marker genes of a single-cell reference [Aran 2019]; scores only.

    The label's lead over the next one is its score; all others have zero.
    """
    from singler import annotate_single

    known, asked = (fold.expression(part, logged=True) for part in ("train", "test"))
    genes = known.var_names.tolist()
    found = annotate_single(
        test_data=asked.X.T.tocsc().astype(np.float64),
        ref_data=known.X.T.tocsc().astype(np.float64),
        ref_labels=known.obs["label"].astype(str).tolist(),
        test_features=genes,
        ref_features=genes,
        train_args={"marker_method": "auc"},
    )
    labels = np.asarray(list(found["best"]), dtype=str)
    lead = np.nan_to_num(np.asarray(found["delta"], dtype=np.float64))
    out = np.zeros((labels.size, fold.n_classes))
    out[np.arange(labels.size), class_codes(labels, fold)] = lead + 1e-9
    return out


def scanvi(fold: Fold) -> Probabilities:
    """scVI, then scANVI [Xu 2021], trained on the training part and asked about the test part.

    On variable genes, the same as logistic regression has.
    """
    import scvi

    known, asked = (fold.expression(part, logged=False) for part in ("train", "test"))
    chosen = variable_genes(fold.expression("train", logged=True).X, N_TOP_GENES)
    known, asked = known[:, chosen].copy(), asked[:, chosen].copy()
    asked.obs["label"] = "unknown"
    with _random_state_kept():
        scvi.settings.seed = fold.seed
        scvi.model.SCVI.setup_anndata(known, labels_key="label")
        base = scvi.model.SCVI(known)
        base.train(enable_progress_bar=False)
        model = scvi.model.SCANVI.from_scvi_model(base, unlabeled_category="unknown")
        model.train(max_epochs=_SCANVI_EPOCHS, enable_progress_bar=False)
        found = model.predict(asked, soft=True)
    return in_class_order(found.to_numpy(), found.columns, fold)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Put the global random numbers back that a package has seeded."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


# name in the table -> function, modules that it needs, what to install
OTHERS: dict[str, tuple[Callable[[Fold], Probabilities], tuple[str, ...], str]] = {
    "CellTypist": (celltypist, ("celltypist",), "celltypist"),
    "SingleR": (singler, ("singler", "scranpy"), "singler scranpy"),
    "scANVI": (scanvi, ("scvi",), "scvi-tools"),
}


def others(names: Sequence[str]) -> list[Method]:
    """Methods by name; those whose package is not installed say so."""
    by_name = {name.casefold(): name for name in OTHERS}
    unknown = [name for name in names if name.casefold() not in by_name]
    if unknown:
        raise InputError(f"Found others={unknown}; expected some of {', '.join(OTHERS)}.")
    return [_method(by_name[name.casefold()]) for name in dict.fromkeys(names)]


def _method(name: str) -> Method:
    predict, modules, install = OTHERS[name]
    return Method(
        representation="genes",
        classifier=name,
        kind="other",
        predict=predict,
        seeded=name != "SingleR",
        calibrated=name != "SingleR",
        missing="" if all(find_spec(module) for module in modules) else install,
    )
