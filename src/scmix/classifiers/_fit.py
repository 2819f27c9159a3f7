"""Fine-tune an encoder on labelled cells."""

import hashlib
import tempfile
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments

from .. import inference
from .._device import choose
from .._errors import InputError
from .._history import History, read_history
from .._rank_kernels import MAX_RANK
from .._run_folder import agree_on_settings, last_checkpoint, sole_run
from .._training import arguments, own_random_state
from ..batches import Sequences, add_special
from ..checkpoints import Model
from ..settings import settings
from ._build import Start, build
from ._cells import Cells
from ._classifier import CellClassifier, load, n_special
from ._expression import gene_matrix
from ._heads import Head, Judged, Probe
from ._lora import add_adapters, merge_adapters
from ._network import Network, first_tokens, freeze, with_pooler
from ._recipes import Recipe
from ._records import make_history
from ._seen import fingerprints
from ._split import in_parts
from ._stream import Stream
from ._trainer import Trainer
from ._validation import Best, Validation, in_bf16

_HISTORY, _BEST = "history.jsonl", "best.safetensors"
MOST_GENES = MAX_RANK  # that vote; the encoder reads as many as it has positions for


def genes_read(model: Model, recipe: Recipe, n_genes: int | None) -> int:
    """Most genes of a cell that a classifier reads, checked."""
    room = model.config.max_position_embeddings - n_special(model.vocabulary)
    most = MOST_GENES if recipe.gene_votes and not model.vocabulary.suffix() else room
    most = max(most, room)
    if n_genes is not None and not 1 <= n_genes <= most:
        raise InputError(f"Found n_genes={n_genes}; expected 1 to {most:,}, or None for all.")
    return most if n_genes is None else n_genes


def fit(
    model: Model,
    cells: Cells,
    recipe: Recipe,
    *,
    n_genes: int | None = None,
    out: str | PathLike[str] | None = None,
    device: str | None = None,
    about: dict[str, Any] | None = None,
) -> CellClassifier:
    """Fine-tune a copy of a model, and calibrate it on the cells set aside.

    Parameters
    ----------
    model
        Where to start; it is left as it is.
    cells
        Labelled cells.
    recipe
        All settings.
    n_genes
        Most genes that are read of a cell; None: as many as the recipe can use.
    out
        Folder of the run, from which one that was interrupted goes on.
    device
        Where to compute; None: where the session does.
    about
        More to be noted in `training`.

    Returns
    -------
    The classifier, in evaluation mode on the CPU.

    Raises
    ------
    InputError
        The settings do not fit the model, the cells or the folder.
    FloatingPointError
        The loss or a gradient is not finite.
    """
    n_genes = genes_read(model, recipe, n_genes)
    vocabulary, cells = model.vocabulary, cells.divided(recipe)
    whole = add_special(
        cells.sequences, vocabulary, cells.species, max_length=n_genes + n_special(vocabulary)
    )
    _check(cells, whole, recipe)
    on = settings.device if device is None else device
    with ExitStack() as stack:
        stack.enter_context(own_random_state())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()) if out is None else out)
        if out is not None:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(sole_run(folder, 0))
            agree_on_settings(folder, _settings(model, cells, whole, recipe), resume=True)
            if (folder / "final").is_dir():
                return load(folder / "final")
        network, start = _network(model, cells, whole, recipe, on)
        if recipe.epochs:
            keeps_start = _train(
                network, model, cells, whole, recipe, folder, on, saves=out is not None
            )
            start = start if keeps_start else None  # or the encoder is another one now
        history = make_history(read_history(folder / _HISTORY), _keep(recipe, cells))
        classifier = build(
            network, model, cells, whole, recipe, n_genes, history, about or {}, start, device=on
        )
        if out is not None:
            classifier.save(folder / "final")
    return classifier


def _network(
    model: Model, cells: Cells, whole: Sequences, recipe: Recipe, device: str
) -> tuple[Network, Start | None]:
    """The network before training, heads at random or fitted, and what they were fitted on."""
    torch.manual_seed(recipe.seed)
    encoder = with_pooler(model.encoder, recipe.pool == "pooler", recipe.seed)
    network = Network(
        encoder,
        [names.size for names in cells.labels.classes.values()],
        pool=recipe.pool,
        hidden_layer=encoder.resolve_layer(recipe.hidden_layer),
        gene_votes=recipe.gene_votes,
        dropout=recipe.dropout,
    )
    start = _fit_heads(network, model, cells, whole, recipe, device) if recipe.probe_cells else None
    freeze(network, recipe.frozen_layers)
    if recipe.lora_rank:
        add_adapters(network, recipe)
    return network, start


def _fit_heads(
    network: Network, model: Model, cells: Cells, whole: Sequences, recipe: Recipe, device: str
) -> Start:
    """Fit the heads on training cells."""
    rows = _sample(np.flatnonzero(~cells.aside), cells.labels.codes, recipe)
    some = whole[rows]
    pooled = inference.run(
        network.encoder.eval(),
        first_tokens(some, model.config.max_position_embeddings),
        special_ids=model.vocabulary.special_ids,
        pool=network.pool,  # type: ignore[arg-type]
        layer=network.hidden_layer,
        device=device,
    )
    genes = gene_matrix(some, model.vocabulary) if recipe.gene_votes else None
    marks, groups = fingerprints(some)[0], None if cells.groups is None else cells.groups[rows]
    judged = []
    for i in range(len(network.heads)):
        codes = cells.labels.codes[rows, i]
        known = np.flatnonzero(codes >= 0)
        parts = in_parts(
            codes[known], None if groups is None else groups[known], marks[known], recipe.seed
        )
        probe = Probe(
            pooled[known],
            None if genes is None else genes[known],
            codes[known],
            network.heads[i].out_features,
            balance=0.0 if recipe.balance == "none" else 1.0,
            c=recipe.probe_c,
        )
        head, found = probe.fit(parts)
        _set_head(network, i, head)
        judged.append(_of_all(found, known, rows.size))
    return Start(rows, pooled, judged)


def _set_head(network: Network, i: int, head: Head) -> None:
    with torch.no_grad():
        network.heads[i].weight.copy_(torch.from_numpy(head.weight))
        network.heads[i].bias.copy_(torch.from_numpy(head.bias))
        if head.votes is not None:
            network.votes[i].copy_(torch.from_numpy(head.votes))


def _of_all(found: Judged, known: np.ndarray, n_cells: int) -> Judged:
    """With rows of NaN for cells without a label of the key."""
    logits = np.full((n_cells, found.logits.shape[1]), np.nan, np.float32)
    distances = np.full(n_cells, np.nan, np.float32)
    logits[known], distances[known] = found
    return Judged(logits, distances)


def _sample(rows: np.ndarray, codes: np.ndarray, recipe: Recipe) -> np.ndarray:
    """At most `probe_cells` of the rows, three of every class among them."""
    if rows.size <= recipe.probe_cells:
        return rows
    rows = np.random.default_rng([recipe.seed, 2]).permutation(rows)
    first = [
        rows[codes[rows, i] == code][:3]
        for i in range(codes.shape[1])
        for code in range(codes[:, i].max() + 1)
    ]
    return np.unique(np.concatenate([*first, rows[: recipe.probe_cells]]))


def _train(
    network: Network,
    model: Model,
    cells: Cells,
    whole: Sequences,
    recipe: Recipe,
    folder: Path,
    device: str,
    *,
    saves: bool,
) -> bool:
    """Train the network to the epoch to keep; whether that is none, and the start was better."""
    vocabulary, limit = model.vocabulary, model.config.max_position_embeddings
    codes, rows = cells.labels.codes, np.flatnonzero(~cells.aside)
    stream = Stream(
        whole[rows],
        codes[rows],
        vocabulary,
        limit,
        batch_size=recipe.batch_size,
        balanced=recipe.balance == "sampling",
        seed=recipe.seed,
    )
    bf16 = in_bf16(device, recipe.precision)
    chooses = np.flatnonzero(cells.chooses)
    validation = Validation(whole[chooses], codes[chooses], vocabulary, bf16=bf16)
    step, checkpoint = (last_checkpoint(folder) if saves else None) or (0, None)
    best = Best(
        folder / _BEST if saves else None,
        folder / _HISTORY,
        step,
        last=_keep(recipe, cells) == "last",
    )
    history = History(folder / _HISTORY, step if checkpoint else -1)
    trainer = Trainer(
        network,
        _arguments(folder, recipe, stream.steps_per_epoch, bf16, device, saves),
        stream,
        recipe,
        validation=validation,
        weights=_class_weights(cells) if recipe.balance == "weights" else None,
        history=history,
        best=best,
    )
    if checkpoint is None:
        trainer.evaluate()  # the start is a candidate too
    epoch = {"epoch": step / stream.steps_per_epoch}
    if step < trainer.args.max_steps and not (step and best.is_final(epoch, recipe.patience)):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    best.restore(network)
    network.to("cpu").eval()
    if recipe.lora_rank:
        merge_adapters(network)
    return best.record["step"] == 0


def _arguments(
    folder: Path, recipe: Recipe, n_steps: int, bf16: bool, device: str, saves: bool
) -> TrainingArguments:
    return arguments(
        folder,
        max_steps=recipe.epochs * n_steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        bf16=bf16,
        use_cpu=choose(device)[0].type == "cpu",
        seed=recipe.seed,
        logging_steps=max(n_steps // 4, 1),
        eval_strategy="steps",
        eval_steps=n_steps,
        save_strategy="steps" if saves else "no",
        save_steps=n_steps,
        save_total_limit=2,
    )


def _keep(recipe: Recipe, cells: Cells) -> str:
    """Without validation cells there is no best epoch."""
    return recipe.keep if cells.aside.any() else "last"


def _class_weights(cells: Cells) -> list[torch.Tensor]:
    """1 / class size in training, with mean 1 over the cells, for each key."""
    weights = []
    for i, names in enumerate(cells.labels.classes.values()):
        codes = cells.labels.codes[~cells.aside, i]
        sizes = np.bincount(codes[codes >= 0], minlength=names.size)
        weights.append(torch.from_numpy(sizes.sum() / (names.size * sizes.clip(min=1))).float())
    return weights


def _check(cells: Cells, whole: Sequences, recipe: Recipe) -> None:
    if not (whole.lengths > 0).all() or not cells.labels.labelled.all():
        raise InputError("Found cells without genes or without a label; leave them out.")
    for i, (key, names) in enumerate(cells.labels.classes.items()):
        codes = cells.labels.codes[~cells.aside, i]
        missing = np.setdiff1d(np.arange(names.size), codes)
        if missing.size:
            raise InputError(
                f"Found no training cell of {', '.join(names[missing][:5])} ({key!r}): all are set "
                "aside for validation. Set others aside, or leave the class out."
            )


def _settings(model: Model, cells: Cells, whole: Sequences, recipe: Recipe) -> dict[str, Any]:
    """What makes a run the same run."""
    digest = hashlib.sha256()
    groups = np.empty(0) if cells.groups is None else cells.groups
    parts = (whole.tokens, whole.indptr, cells.labels.codes, cells.aside, cells.chooses, groups)
    for values in parts:
        digest.update(np.ascontiguousarray(values).tobytes())
    classes = {key: list(map(str, names)) for key, names in cells.labels.classes.items()}
    return {
        "recipe": recipe.to_dict(),
        "model": model.sha256,
        "cells": digest.hexdigest(),
        "classes": classes,
    }
