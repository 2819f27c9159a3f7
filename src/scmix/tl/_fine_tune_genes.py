"""Classes of genes, from how the encoder reads them in cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from .. import _slots, checkpoints
from .._errors import InputError
from .._gene_matching import OnDuplicate
from .._warn import warn
from ..batches import Sequences, add_special, concat
from ..classifiers._classifier import n_special
from ..classifiers._genes import GeneRecipe, baseline, folds_of, predict_genes
from ..classifiers._labels import encode
from ..genes import Vocabulary, match
from ..pp._match_adata import GeneOptions, match_adata


@dataclass(frozen=True, eq=False)
class GeneClassification:
    """Classes of genes, predicted by classifiers that were not shown them.

    Parameters
    ----------
    predictions
        One row for each gene that occurs in the cells, by Ensembl id: `symbol`, `label` (missing
        where none was given), `fold` (-1: no label, predicted by all folds), `detection` (share of
        cells in which it was read), `predicted`, and `probability_<class>` for each class.
    scores
        Two rows, "encoder" and "baseline": `n_genes` with a label, `accuracy`, `macro_f1`,
        `majority` (accuracy of always saying the largest class) and, of two classes, `auroc`.
    params
        Model, settings and numbers of cells.
    """

    predictions: pd.DataFrame
    scores: pd.DataFrame
    params: dict[str, Any]

    def __repr__(self) -> str:
        sizes = self.predictions["label"].value_counts(sort=False)
        shown = ", ".join(f"{name} {n:,}" for name, n in sizes.items())
        return (
            f"GeneClassification: {len(self.predictions):,} genes, labelled {shown}\n"
            f"  {self.params['n_folds']} folds over genes, {self.params['n_cells']:,} cells, "
            f"model {self.params['model']!r}\n{self.scores.round(3).to_string()}"
        )


def fine_tune_genes(
    adata: AnnData,
    gene_labels: "Mapping[str, str] | pd.Series",
    *,
    model: "str | PathLike | checkpoints.Model" = "scmix-mini",
    layer: str | None = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    allow_noninteger: bool = False,
    max_cells: int = 500,
    seed: int = 0,
    device: str | None = None,
    **settings: Any,
) -> GeneClassification:
    """Tell classes of genes (dosage-sensitive or not, ...) from their states in cells.

    As Geneformer's gene classifier, a head reads the hidden states of genes in many cells, and the
    encoder is fine-tuned for it. Labelled genes are divided into folds: the genes of a fold are
    predicted by a classifier that never saw their labels, from their mean state in all cells.
    Beside it stands the same regression on what needs no reading of cells: mean expression, the
    share of cells with the gene, and the model's input embedding of the gene.

    `adata` is read, never written.

    Parameters
    ----------
    adata
        Raw counts of cells in which the genes are expressed.
    gene_labels
        Label of each gene, by Ensembl id or symbol. Genes of the data without a label are
        predicted too.
    model
        A name of `scmix.models.list()`, the folder of a checkpoint, or a loaded model.
    layer
        Layer with the counts; `.X` by default.
    species, species_key, gene_ids, on_duplicate, allow_noninteger
        As in `scmix.tl.embed`.
    max_cells
        Cells that are read; a random part where there are more.
    seed
        Of the cells, the folds and the training.
    device
        "auto", "cpu", "cuda", ...; `scmix.settings.device` when not given.
    **settings
        Of the training: `n_folds` (5), `epochs` (1; 0 leaves the encoder as it is),
        `learning_rate` (5e-5), `frozen_layers` (2), `hidden_layer` (-1), `batch_cells` (8),
        `c` (0.1, the inverse penalty of the head).

    Returns
    -------
    Predictions for every gene that the cells have, and scores on the labelled ones.

    Raises
    ------
    InputError
        If labels or settings cannot be used, a class has fewer genes than folds, or the values
        are no raw counts.
    GeneIdError
        If too few genes are known, or the species is not clear.
    MissingKeyError
        If a layer or column does not exist.

    Examples
    --------
    >>> import scmix
    >>> cells = scmix.datasets.pbmc3k()[:30].copy()
    >>> labels = {name: "ribosome" for name in cells.var_names if name.startswith("RPL")}
    >>> labels |= {name: "mitochondrion" for name in cells.var_names if name.startswith("NDUF")}
    >>> found = scmix.tl.fine_tune_genes(cells, labels, epochs=0, n_folds=2)
    >>> found.scores.index.tolist()
    ['encoder', 'baseline']
    """
    recipe = _recipe(seed, settings)
    if max_cells < 1:
        raise InputError(f"Found max_cells={max_cells}; expected at least 1.")
    loaded = checkpoints.load(model)
    loaded.encoder.resolve_layer(recipe.hidden_layer)
    vocabulary = loaded.vocabulary
    codes_of, classes = _labels_of_tokens(gene_labels, vocabulary, species)
    part = _some(adata, max_cells, seed)
    genes = GeneOptions(
        species=species, species_key=species_key, gene_ids=gene_ids, on_duplicate=on_duplicate
    )
    found = match_adata(part, vocabulary, **genes)
    counts: Any = {"layer": layer, "allow_noninteger": allow_noninteger}
    sequences = _read(part, loaded, match=found, **genes, **counts)
    length = loaded.config.max_position_embeddings
    cells = add_special(sequences, vocabulary, found[1], max_length=length)
    cells = cells[sequences.lengths > 0]
    times = np.bincount(sequences.tokens, minlength=vocabulary.n_tokens)
    tokens = np.flatnonzero(times)
    labels = codes_of[tokens]
    _say_absent(codes_of, tokens, vocabulary)
    fold = folds_of(labels, recipe)
    chances = predict_genes(loaded, cells, tokens, labels, fold, recipe, device)
    features = _features(part, loaded, found[0].tokens, tokens, **counts)
    plain = baseline(features, labels, fold, recipe)
    table = _table(vocabulary, tokens, found[0], labels, classes, fold, chances)
    table.insert(3, "detection", times[tokens] / len(cells))
    scores = pd.DataFrame(
        [_scores(labels, chances), _scores(labels, plain)], index=["encoder", "baseline"]
    )
    params = _slots.params(
        model=loaded.name, model_sha256=loaded.sha256, n_cells=len(cells), **vars(recipe)
    )
    return GeneClassification(table, scores, params)


def _some(adata: AnnData, max_cells: int, seed: int) -> AnnData:
    """At most so many cells."""
    if adata.n_obs <= max_cells:
        return adata
    rng = np.random.default_rng([seed, 6])
    return adata[np.sort(rng.choice(adata.n_obs, max_cells, replace=False))]


def _read(adata: AnnData, model: checkpoints.Model, **reading: Any) -> Sequences:
    """Ranked genes of all cells, as many as the encoder has positions for."""
    room = model.config.max_position_embeddings - n_special(model.vocabulary)
    blocks = _slots.iter_sequences(adata, model.vocabulary, n_genes=room, **reading)
    return concat([block.sequences for block in blocks])


def _recipe(seed: int, settings: dict[str, Any]) -> GeneRecipe:
    known = [name for name in GeneRecipe.__dataclass_fields__ if name != "seed"]
    strange = sorted(settings.keys() - set(known))
    if strange:
        raise InputError(f"Found {strange[0]!r}, which is no setting; expected {', '.join(known)}.")
    return GeneRecipe(seed=seed, **settings)


def _labels_of_tokens(
    gene_labels: "Mapping[str, str] | pd.Series", vocabulary: Vocabulary, species: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Class of every token, -1 for none, and the names of the classes."""
    column = pd.Series(gene_labels).dropna()
    if column.empty or not column.index.is_unique:
        raise InputError(
            f"Found {len(column)} labels of {column.index.nunique()} genes; expected one label for "
            "each of several genes."
        )
    labels = encode({"gene_labels": column.reset_index(drop=True)})
    tokens = match(column.index.astype(str), vocabulary, species=species, on_duplicate="sum").tokens
    codes = labels.codes[:, 0]
    out = np.full(vocabulary.n_tokens, -1)
    known = tokens >= 0
    out[tokens[known]] = codes[known]
    if (out[tokens[known]] != codes[known]).any():
        clash = column.index[known][out[tokens[known]] != codes[known]][0]
        raise InputError(f"Found two different labels of one gene ({clash!r}, by another name).")
    if not known.all():
        warn(
            f"{(~known).sum()} of {known.size} labelled genes are not in the vocabulary, such as "
            f"{', '.join(map(str, column.index[~known][:3]))}."
        )
    return out, labels.classes["gene_labels"]


def _say_absent(codes_of: np.ndarray, tokens: np.ndarray, vocabulary: Vocabulary) -> None:
    absent = np.setdiff1d(np.flatnonzero(codes_of >= 0), tokens)
    if absent.size:
        names = vocabulary.token_names()[absent[:3]]
        warn(
            f"{absent.size} of {(codes_of >= 0).sum()} labelled genes are not read in any of these "
            f"cells, such as {', '.join(map(str, names))}; nothing is predicted for them."
        )


def _features(
    adata: AnnData,
    model: checkpoints.Model,
    columns: np.ndarray,
    tokens: np.ndarray,
    layer: str | None,
    allow_noninteger: bool,
) -> np.ndarray:
    """Log mean expression, share of cells with the gene, and input embedding of each token."""
    n_tokens = model.vocabulary.n_tokens
    used = np.flatnonzero(columns >= 0)
    total, cells = np.zeros(n_tokens), np.zeros(n_tokens)
    for _, counts in _slots.iter_counts(adata, layer=layer, allow_noninteger=allow_noninteger):
        depth = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
        share = np.asarray(counts.T @ (10_000 / depth)).ravel()
        np.add.at(total, columns[used], share[used])
        np.add.at(cells, columns[used], counts.getnnz(axis=0)[used])
    weight = model.encoder.bert.embeddings.word_embeddings.weight.detach().numpy()
    means = np.log1p(total[tokens] / adata.n_obs)
    return np.column_stack([means, cells[tokens] / adata.n_obs, weight[tokens]])


def _table(
    vocabulary: Vocabulary,
    tokens: np.ndarray,
    found: Any,
    labels: np.ndarray,
    classes: np.ndarray,
    fold: np.ndarray,
    chances: np.ndarray,
) -> pd.DataFrame:
    first = {int(token): i for i, token in reversed(list(enumerate(found.tokens)))}
    ids = [found.ensembl_id[first[int(token)]] for token in tokens]
    given = pd.Categorical.from_codes(labels, classes)
    table = pd.DataFrame(
        {
            "symbol": vocabulary.token_names()[tokens].astype(str),
            "label": given,
            "fold": fold,
            "predicted": pd.Categorical.from_codes(chances.argmax(axis=1), classes),
        },
        index=pd.Index(ids, name="ensembl_id"),
    )
    for i, name in enumerate(classes):
        table[f"probability_{name}"] = chances[:, i]
    return table


def _scores(labels: np.ndarray, chances: np.ndarray) -> dict[str, float]:
    known = labels >= 0
    true, given = labels[known], chances[known]
    scores = {
        "n_genes": int(known.sum()),
        "accuracy": accuracy_score(true, given.argmax(axis=1)),
        "macro_f1": f1_score(true, given.argmax(axis=1), average="macro", zero_division=0),
        "majority": np.bincount(true).max() / true.size,
    }
    if given.shape[1] == 2:
        scores["auroc"] = roc_auc_score(true, given[:, 1])
    return scores
