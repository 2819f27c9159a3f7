"""Classes of genes from their hidden states in cells, judged on genes that were not trained on."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm.auto import tqdm

from .. import inference
from .._device import choose
from .._errors import InputError
from ..batches import Sequences, pack
from ..checkpoints import Model
from ..encoder import Encoder
from ..settings import settings
from ._network import with_pooler

_TOKENS_AT_ONCE = 1 << 17
_STEPS = 300


@dataclass(frozen=True)
class GeneRecipe:
    """Settings of the classification of genes.

    Parameters
    ----------
    n_folds
        Parts of the labelled genes; each is predicted by a classifier of the others.
    epochs
        Times that the encoder sees the cells; 0: it stays as it is.
    learning_rate, batch_cells
        Of AdamW, and cells of a batch.
    frozen_layers
        Lowest layers that stay as they are, and with them the embeddings.
    hidden_layer
        Hidden state that genes are read from.
    c
        Inverse strength of the penalty of the head.
    seed
        Of folds, order of cells and dropout.
    """

    n_folds: int = 5
    epochs: int = 1
    learning_rate: float = 5e-5
    batch_cells: int = 8
    frozen_layers: int = 2
    hidden_layer: int = -1
    c: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        lowest = {"n_folds": 2, "epochs": 0, "batch_cells": 1, "frozen_layers": 0, "seed": 0}
        for name, least in lowest.items():
            if type(value := getattr(self, name)) is not int or value < least:
                raise InputError(f"Found {name}={value!r}; expected a whole number from {least}.")
        for name in ("learning_rate", "c"):
            if not (value := getattr(self, name)) > 0:
                raise InputError(f"Found {name}={value!r}; expected a number above 0.")


def folds_of(codes: np.ndarray, recipe: GeneRecipe) -> np.ndarray:
    """Fold of every labelled gene, -1 for the others; genes of a class go to all folds alike."""
    labelled = np.flatnonzero(codes >= 0)
    sizes = np.bincount(codes[labelled])
    if sizes.min() < recipe.n_folds:
        raise InputError(
            f"Found a class of {sizes.min()} genes that occur in the cells; expected at least "
            f"n_folds={recipe.n_folds} of each. Pass fewer folds, or leave the class out."
        )
    fold = np.full(codes.size, -1)
    split = StratifiedKFold(recipe.n_folds, shuffle=True, random_state=recipe.seed)
    for i, (_, held_out) in enumerate(split.split(labelled, codes[labelled])):
        fold[labelled[held_out]] = i
    return fold


def predict_genes(
    model: Model,
    cells: Sequences,
    tokens: np.ndarray,
    codes: np.ndarray,
    fold: np.ndarray,
    recipe: GeneRecipe,
    device: str | None,
) -> np.ndarray:
    """Probabilities of classes for genes, each by classifiers that were not shown its label.

    Parameters
    ----------
    model
        Where every fold starts; it is left as it is.
    cells
        Tokens, special ones included.
    tokens, codes, fold
        Token, class (-1: none) and fold of each gene; all occur in the cells.
    recipe
        All settings.
    device
        Where to compute.

    Returns
    -------
    float64 (n_genes, n_classes). Genes without a label get the mean over the folds.
    """
    n_classes = int(codes.max()) + 1
    frozen = mean_states(model, model.encoder, cells, recipe.hidden_layer, device)[tokens]
    total, times = np.zeros((tokens.size, n_classes)), np.zeros(tokens.size)
    for i in range(recipe.n_folds):
        shown = (codes >= 0) & (fold != i)
        states = frozen
        if recipe.epochs:
            known = np.full(model.vocabulary.n_tokens, -1)
            known[tokens[shown]] = codes[shown]
            start = regression(frozen[shown], codes[shown], recipe.c)
            encoder = _tuned(model, cells, known, start, recipe, device, i)
            states = mean_states(model, encoder, cells, recipe.hidden_layer, device)[tokens]
        asked = ~shown
        fitted = regression(states[shown], codes[shown], recipe.c)
        total[asked] += fitted.predict_proba(states[asked])
        times[asked] += 1
    return total / times[:, None]


def baseline(
    features: np.ndarray, codes: np.ndarray, fold: np.ndarray, recipe: GeneRecipe
) -> np.ndarray:
    """The same from fixed features of genes, without an encoder."""
    total, times = np.zeros((codes.size, int(codes.max()) + 1)), np.zeros(codes.size)
    for i in range(recipe.n_folds):
        shown = (codes >= 0) & (fold != i)
        fitted = regression(features[shown], codes[shown], recipe.c)
        total[~shown] += fitted.predict_proba(features[~shown])
        times[~shown] += 1
    return total / times[:, None]


def regression(features: np.ndarray, codes: np.ndarray, c: float) -> Pipeline:
    """Logistic regression on scaled features, classes weighted alike."""
    model = LogisticRegression(C=c, max_iter=_STEPS, class_weight="balanced")
    return make_pipeline(StandardScaler(), model).fit(features, codes)


def mean_states(
    model: Model, encoder: Encoder, cells: Sequences, layer: int, device: str | None
) -> np.ndarray:
    """Mean hidden state of every token over its occurrences; NaN where it has none."""
    n_tokens, width = model.vocabulary.n_tokens, model.config.hidden_size
    sums, counts = np.zeros((n_tokens, width)), np.zeros(n_tokens)
    for rows in pack(cells.lengths, _TOKENS_AT_ONCE):
        part = cells[rows]
        states = inference.run(
            encoder,
            part,
            special_ids=model.vocabulary.special_ids,
            pool="tokens",
            layer=layer,
            device=device,
        )
        n = part.tokens.size
        occurs = sp.csr_matrix((np.ones(n), (part.tokens, np.arange(n))), (n_tokens, n))
        sums += occurs @ states.astype(np.float64)
        counts += np.bincount(part.tokens, minlength=n_tokens)
    with np.errstate(invalid="ignore"):
        return sums / counts[:, None]


def _tuned(
    model: Model,
    cells: Sequences,
    known: np.ndarray,
    start: Pipeline,
    recipe: GeneRecipe,
    device: str | None,
    fold: int,
) -> Encoder:
    """A copy of the encoder, trained to tell the classes of known tokens in every cell."""
    on, number = choose(settings.device if device is None else device, "auto")
    encoder = with_pooler(model.encoder, False, recipe.seed).to(on).train()
    encoder.requires_grad_(False)
    last = encoder.resolve_layer(recipe.hidden_layer)
    for block in encoder.bert.encoder.layer[recipe.frozen_layers : last]:
        block.requires_grad_(True)
    if not recipe.frozen_layers:
        encoder.bert.embeddings.requires_grad_(True)
    head = _head(start).to(on)
    weights = torch.from_numpy(_class_weights(known)).to(on, torch.float32)
    trained = [p for p in [*encoder.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=0.001)
    half = torch.autocast(on.type, number) if number != torch.float32 else nullcontext()
    batches = list(_batches(len(cells), recipe, fold))
    with torch.random.fork_rng(devices=[on] if on.type == "cuda" else []):
        torch.manual_seed(_seed(recipe, fold))
        for rows in tqdm(batches, f"Fold {fold + 1}", leave=False, disable=not settings.progress):
            part = cells[rows[np.argsort(-cells.lengths[rows], kind="stable")]]
            codes = torch.from_numpy(known[part.tokens])
            places = torch.nonzero(codes >= 0).ravel()
            if not places.numel():
                continue
            tokens = torch.from_numpy(part.tokens.astype(np.int64)).to(on)
            with half:
                hidden = encoder(tokens, part.indptr.tolist(), layer=recipe.hidden_layer)
                scores = head(hidden[places.to(on)])
            truth = codes[places].to(on)
            loss = nn.functional.cross_entropy(scores.float(), truth, weight=weights)
            _step(loss, optimizer, trained)
    return encoder.to("cpu").eval().requires_grad_(True)


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, trained: list[Any]) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(
            "Training of genes stopped: the loss is not finite. Lower learning_rate."
        )
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()


def _batches(n_cells: int, recipe: GeneRecipe, fold: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng([recipe.seed, 4, fold])
    for _ in range(recipe.epochs):
        order = rng.permutation(n_cells)
        yield from np.split(order, range(recipe.batch_cells, n_cells, recipe.batch_cells))


def _head(start: Pipeline) -> nn.Linear:
    """The regression on mean states as a layer: a mean of logits is the logit of the mean."""
    scaler, model = start[0], start[-1]
    weight = model.coef_ / scaler.scale_
    bias = model.intercept_ - weight @ scaler.mean_
    if len(weight) == 1:  # of two classes, scikit-learn keeps the difference
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    head = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return head


def _class_weights(known: np.ndarray) -> np.ndarray:
    sizes = np.bincount(known[known >= 0])
    return sizes.mean() / sizes


def _seed(recipe: GeneRecipe, fold: int) -> int:
    return int(np.random.SeedSequence([recipe.seed, 5, fold]).generate_state(1)[0])
