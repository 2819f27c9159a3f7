"""Labels for cells by a fine-tuned classifier, with how sure they are, and "unknown"."""

from collections.abc import Container, Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np
from anndata import AnnData

from .. import _slots, classifiers
from .._errors import MissingKeyError
from .._gene_matching import OnDuplicate
from .._opening import opened
from .._warn import warn
from .._writer import is_ours
from ..genes import SPECIES
from ..pp._match_adata import GeneOptions, match_adata
from ..statistics import Calibration, conformal_sets
from ._decisions import Reject, Rule, Sets, check_rules, likeliest, make_rule
from ._far import has_distances, share_far, warn_shifted
from ._labelling import UNKNOWN, check_slots, label_slots, of_label, warn_without_vector
from ._predictions import Predictions, predict
from ._smoothing import Voters, find_voters


def annotate(
    adata: AnnData,
    classifier: "classifiers.CellClassifier | str | PathLike",
    *,
    label_key: str | None = None,
    reject: Reject | None = None,
    alpha: float = 0.1,
    sets: Sets | None = None,
    by_class: bool = False,
    smooth: bool | str = False,
    layer: str | None = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    allow_noninteger: bool = False,
    key_added: str = "scmix_label",
    device: str | None = None,
    dtype: str = "auto",
    batch_tokens: int | None = None,
    overwrite: bool = False,
    copy: bool = False,
) -> AnnData | None:
    """Label cells with a classifier of `scmix.tl.fine_tune`, from raw counts.

    A cell's label is the most likely class and its confidence that class's probability,
    calibrated on cells that the classifier was not trained on. With `reject`, cells that
    resemble no class are labelled "unknown". A cell's result does not depend on the other cells,
    unless `smooth` makes neighbours vote. Counts are read in blocks of cells.

    Cells of a species that the classifier was not trained on can be labelled through the shared
    vocabulary. But confidence, sets and rejection hold for cells like those of the calibration:
    another species, assay or tissue is outside their guarantee. A warning says so where the
    species differs, and where many more cells than should lie far from all types.

    Parameters
    ----------
    adata
        Raw counts, cells by genes: in memory, a view, backed or dask.
    classifier
        A classifier, or the folder of one.
    label_key
        Which label, for a classifier of several; all of them when not given.
    reject
        `"distance"`: a cell is unknown when it lies farther from all classes than nearly all
        calibration cells do, by its vector and its logits (:func:`scmix.statistics.strangeness`).
        `"conformal"`: when no class is likely enough for it, an empty split-conformal set (LAC).
        There are no such sets when the classifier errs more often than `alpha`. Both lose a share
        of at most `alpha` of the known cells, on average.
    alpha
        That share, and the share of cells whose set misses the true label.
    sets
        Also write the set of classes that cannot be ruled out for each cell; it holds the true
        one with probability 1 - `alpha`. `"lac"`: the smallest sets. `"aps"`: larger ones that
        are as good for hard cells as for easy ones, never empty.
    by_class
        Thresholds for each class by its own cells (with `reject="conformal"` and for `sets`), so
        that rare classes are covered as often as common ones.
    smooth
        `True`: a cell's label is the vote of the cell and its neighbours in the graph of
        `scanpy.pp.neighbors`, by the graph's weights; text: the same with the graph of this key,
        or, for a column of `obs` with clusters, one vote of all cells of the cluster. Each cell
        votes with its probabilities, and a rejected one for "unknown". Finer clusters than the
        types are best, as in CellTypist's majority voting [1]_.
    layer, species, species_key, gene_ids, on_duplicate, allow_noninteger
        As in :func:`scmix.tl.embed`.
    key_added
        Key of `obs` and `uns`; `_` and the label key are added where there are several.
    device, dtype, batch_tokens
        As in :func:`scmix.tl.embed`.
    overwrite
        Replace a key that scmix did not write.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    Nothing, or the copy, with:

    `obs[key_added]` : categorical
        The label: classes in the order of the training labels, then "unknown" with `reject`.
        Missing for a cell without a known gene.
    `obs[f"{key_added}_confidence"]` : float32
        Calibrated probability of the most likely class, also where that was rejected; with
        `smooth` the voters' mean for the label.
    `obsm[f"{key_added}_probabilities"]` : float32, (n_obs, n_classes)
        Calibrated probabilities of each cell itself.
    `obsm[f"{key_added}_sets"]` : bool, (n_obs, n_classes)
        With `sets`.
    `obs[f"{key_added}_distance"]` : float32
        With `reject="distance"`: how far a cell lies from all classes; 0 is the mean of the
        calibration cells.
    `uns[key_added]` : dict
        `params`, `classes` (names of the columns), `thresholds`, `n_unknown`, `n_seen` (cells
        that the classifier was trained or calibrated on), `share_far` (of cells farther from all
        types than 90 % of the calibration cells: 0.1 where both are alike) and `caveat` (text,
        empty if none).

    Raises
    ------
    InputError
        If an option does not exist, the classifier lacks what `reject` needs, or the values are
        no raw counts.
    GeneIdError
        If too few genes are known, or the species is not clear.
    MissingKeyError
        If a key does not exist.

    References
    ----------
    .. [1] Domínguez Conde et al. (2022). Cross-tissue immune cell analysis reveals
       tissue-specific features in humans. Science 376.

    Examples
    --------
    >>> import scmix
    >>> cells = scmix.datasets.pancreas()
    >>> human = cells[cells.obs["species"] == "human", cells.var["species"] == "human"][::3]
    >>> reference, new = human[::2].copy(), human[1::2].copy()
    >>> classifier = scmix.tl.fine_tune(reference, "cell_type", n_genes=256)
    >>> scmix.tl.annotate(new, classifier)
    >>> set(new.obs["scmix_label"]) <= set(reference.obs["cell_type"])
    True
    """
    check_rules(reject, sets, by_class)
    cells, cells_layer = opened(adata, layer)
    loaded = classifiers.load(classifier)
    names = _names(loaded.label_keys, label_key, key_added)
    limits: Any = {"reject": reject, "sets": sets, "alpha": alpha, "by_class": by_class}
    rules = {
        key: make_rule(loaded.calibration.get(key), key, loaded.classes[key], **limits)
        for key in names
    }
    voters = find_voters(cells, smooth)
    for name in names.values():
        check_slots(adata, name, overwrite=overwrite, copy=copy)
    genes = GeneOptions(
        species=species, species_key=species_key, gene_ids=gene_ids, on_duplicate=on_duplicate
    )
    counts: Any = {"layer": cells_layer, "allow_noninteger": allow_noninteger}
    vocabulary = loaded.model.vocabulary
    match = match_adata(cells, vocabulary, **genes)
    found = predict(
        loaded,
        _slots.iter_sequences(
            cells, vocabulary, match=match, n_genes=loaded.n_genes, **genes, **counts
        ),
        adata.n_obs,
        names,
        measured=[key for key in names if has_distances(loaded.calibration.get(key))],
        device=device,
        dtype=dtype,
        batch_tokens=batch_tokens,
    )
    about = {
        "params": _params(loaded, limits, smooth=smooth, **genes, **counts | {"layer": layer}),
        "n_seen": int(found.seen.sum()),
        "caveat": _caveat(loaded, match[1]),
    }
    slots: dict[tuple[str, str], Any] = {}
    for key, name in names.items():
        noted = about | _shift(loaded.calibration.get(key), found, key)
        slots |= _decided(name, found, key, loaded.classes[key], rules[key], voters, noted)
    warn_without_vector(found.n_empty, adata.n_obs, key_added)
    _warn(about, adata.n_obs)
    target = adata.copy() if copy else adata
    stale = _stale(target, names.values(), slots)
    _slots.write(target, slots, overwrite=overwrite, stale=stale)
    return target if copy else None


def _names(keys: Sequence[str], label_key: str | None, key_added: str) -> dict[str, str]:
    """Label key to the key that its labels are written to."""
    if label_key is not None and label_key not in keys:
        raise MissingKeyError(
            f"Found label_key={label_key!r}; the classifier gives {', '.join(map(repr, keys))}."
        )
    if label_key is not None or len(keys) == 1:
        return {label_key or keys[0]: key_added}
    return {key: f"{key_added}_{key}" for key in keys}


def _shift(calibration: Calibration | None, found: Predictions, key: str) -> dict[str, float]:
    """How many cells are unlike those of the calibration, where that was measured; it warns."""
    if calibration is None or key not in found.distances:
        return {}
    share = share_far(calibration, found.distances[key])
    warn_shifted(key, share, len(found.seen))
    return {"share_far": share}


def _decided(
    name: str,
    found: Predictions,
    key: str,
    classes: np.ndarray,
    rule: Rule,
    voters: Voters | None,
    about: dict[str, Any],
) -> dict[tuple[str, str], Any]:
    """Everything to write for one label key."""
    chances, codes = likeliest(found.logits[key], rule.temperature)
    rejected = rule.rejected(chances, found.distances.get(key))
    sure = of_label(chances, codes)
    if voters is not None:
        codes, rejected, sure = _voted(chances, rejected, voters)
    made = {**about, "classes": classes, "n_unknown": int(rejected.sum())}
    if rule.thresholds():
        made["thresholds"] = rule.thresholds()
    categories = classes if rule.reject is None else [*classes, UNKNOWN]
    labels = np.where(rejected, len(classes), codes)
    slots = label_slots(name, labels, categories, sure, chances, made)
    if rule.sets is not None:
        method, threshold = rule.sets
        slots["obsm", f"{name}_sets"] = conformal_sets(chances, threshold, method)
    if rule.reject is not None and rule.reject[0] == "distance":
        slots["obs", f"{name}_distance"] = found.distances[key]
    return slots


def _voted(
    chances: np.ndarray, rejected: np.ndarray, voters: Voters
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class, whether it is rejected, and confidence, by the vote of a cell and its neighbours."""
    unknown = np.where(np.isnan(chances[:, 0]), np.nan, rejected)
    votes = np.column_stack([np.where(rejected[:, None], 0, chances), unknown])
    shares = np.nan_to_num(voters.mean(votes), nan=-1)
    means = np.nan_to_num(voters.mean(chances), nan=-1)
    lost = shares.argmax(axis=1) == chances.shape[1]
    codes = np.where(lost, means.argmax(axis=1), shares[:, :-1].argmax(axis=1))
    codes[np.isnan(unknown)] = -1
    return codes, lost, of_label(means, codes)


def _params(
    classifier: "classifiers.CellClassifier", limits: dict[str, Any], **options: Any
) -> dict[str, Any]:
    if limits["reject"] is None and limits["sets"] is None:
        limits = {}
    model = classifier.model
    return _slots.params(
        model=model.name,
        model_sha256=model.sha256,
        vocabulary_sha256=model.vocabulary.sha256,
        **limits,
        **options,
    )


def _caveat(classifier: "classifiers.CellClassifier", codes: np.ndarray) -> str:
    """What the calibration does not cover, as far as it can be seen."""
    known = list(classifier.training["species"])
    strange = [
        f"{(codes == code).sum():,} cells are {name}"
        for code, name in enumerate(SPECIES)
        if name not in known and (codes == code).any()
    ]
    if not strange:
        return ""
    return (
        f"{' and '.join(strange)}, the classifier was trained and calibrated on "
        f"{' and '.join(known)}: confidence, sets and rejection have no guarantee for them."
    )


def _warn(about: dict[str, Any], n_cells: int) -> None:
    if about["n_seen"]:
        warn(
            f"The classifier was trained or calibrated on {about['n_seen']:,} of these "
            f"{n_cells:,} cells: their labels and confidence say nothing about new cells."
        )
    if about["caveat"]:
        warn(about["caveat"])


def _stale(
    adata: AnnData, names: Iterable[str], slots: Container[tuple[str, str]]
) -> list[tuple[str, str]]:
    """What an earlier call wrote and this one does not."""
    optional = [
        place
        for name in names
        if is_ours(adata.uns.get(name))
        for place in (("obsm", f"{name}_sets"), ("obs", f"{name}_distance"))
    ]
    return [(s, n) for s, n in optional if n in getattr(adata, s) and (s, n) not in slots]
