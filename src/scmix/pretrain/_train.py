"""Train an encoder on a corpus by a recipe."""

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model
from transformers import TrainingArguments

from .. import checkpoints
from .._errors import InputError
from .._history import History
from .._run_folder import agree_on_settings, last_checkpoint, sole_run
from .._training import arguments, own_random_state
from ..settings import logger, settings
from ._trainer import Trainer
from ._validation import Validation
from .corpus import Corpus
from .initialise import start_from_coexpression
from .model import Pretraining, make_model
from .recipes import Recipe
from .recipes import recipe as make_recipe
from .views import Stream


def train(
    corpus: Corpus | str | PathLike[str],
    out: str | PathLike[str],
    recipe: str | Recipe = "mix-geneformer",
    *,
    resume: bool = True,
    validation: Corpus | str | PathLike[str] | None = None,
    log_every: int = 10,
    checkpoint_every: int = 500,
    keep: int = 2,
    licence: str = "not stated",
    **overrides: Any,
) -> Path:
    """Pretrain an encoder with `transformers.Trainer`.

    A run that was interrupted, even killed, goes on from its last complete checkpoint when it is
    called again. On CPU, with the same number of threads, it ends with the same bits as one that
    was never interrupted: batches, masks and dropout depend on the recipe's seed and the step only.

    Several GPUs: start a script that calls this with ``torchrun`` or ``accelerate launch``; each
    process trains on its own batches. The device is that of ``scmix.settings.device``.

    Parameters
    ----------
    corpus
        From :func:`build_corpus`, in the vocabulary mode that the recipe names.
    out
        Folder of the run: ``settings.json``, ``history.jsonl``, ``checkpoint-<step>/``, and at
        the end ``final/``, which ``scmix.models.load`` opens.
    recipe
        Name of a recipe, or a :class:`Recipe`.
    resume
        Go on with a run that is in ``out``; False: refuse a folder that has one.
    validation
        Corpus of held-out cells: at every checkpoint the masked language model's loss on it is
        written to the history, with fixed masks, for each species.
    log_every
        Steps between records of the history; each holds means over these steps. A kill does not
        change them: ``checkpoint_every`` must be a multiple.
    checkpoint_every
        Steps between checkpoints.
    keep
        Checkpoints kept, the newest. At least 2, so that one is whole at any time.
    licence
        Under which others may use the weights, saved with them.
    **overrides
        Fields of :class:`Recipe` to change, such as ``steps=2000``.

    Returns
    -------
    Folder of the trained model, ``out/final``.

    Raises
    ------
    InputError
        Corpus, recipe and folder do not fit each other, or another process trains there.
    FloatingPointError
        The loss or a gradient is not finite. The message names the step and the cells.
        Checkpoints from before stay.

    Examples
    --------
    A very small model of a few cells, to see that everything is in place:

    >>> import tempfile
    >>> import scmix
    >>> folder = Path(tempfile.mkdtemp())
    >>> scmix.datasets.pbmc3k()[:40].write_h5ad(folder / "cells.h5ad")
    >>> corpus = scmix.pretrain.build_corpus([folder / "cells.h5ad"], folder / "corpus")
    >>> small = {"hidden_size": 16, "num_hidden_layers": 1, "max_length": 64}
    >>> final = train(
    ...     corpus, folder / "run", "mix-geneformer-x", steps=2, tokens_per_step=512, **small
    ... )
    >>> scmix.models.load(final).config.hidden_size
    16
    """
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    held_out = _open_validation(validation, corpus)
    settled = make_recipe(recipe, **overrides)
    folder = Path(out)
    _check(corpus, settled, log_every, checkpoint_every, keep)
    folder.mkdir(parents=True, exist_ok=True)
    args = _arguments(folder, settled, log_every, checkpoint_every, keep, held_out is not None)
    with own_random_state(), sole_run(folder, args.process_index):
        agree_on_settings(folder, _settings(corpus, settled, log_every, checkpoint_every), resume)
        final = folder / "final"
        if final.is_dir():
            return final
        model = _train(folder, corpus, held_out, settled, args)
        if args.process_index == 0:
            _save(final, model, corpus, settled, licence)
    return final


def _train(
    folder: Path,
    corpus: Corpus,
    held_out: Corpus | None,
    recipe: Recipe,
    args: TrainingArguments,
) -> Pretraining:
    model = make_model(corpus.vocabulary, recipe)
    step, checkpoint = last_checkpoint(folder) or (0, None)
    if checkpoint is not None and step >= recipe.steps:
        load_model(model, str(checkpoint / "model.safetensors"))
        return model
    if checkpoint is None and recipe.init == "coexpression":
        n = start_from_coexpression(
            model.encoder, corpus, max_genes=recipe.max_length, seed=recipe.seed
        )
        logger.info("Started %s genes from their co-expression.", f"{n:,}")
    stream = Stream(corpus, recipe, model.views, rank=args.process_index, world=args.world_size)
    trainer = Trainer(
        model,
        args,
        stream,
        recipe,
        History(folder / "history.jsonl", step),
        Validation(held_out, corpus, recipe) if held_out else None,
    )
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return trainer.accelerator.unwrap_model(trainer.model)


def _arguments(
    folder: Path,
    recipe: Recipe,
    log_every: int,
    checkpoint_every: int,
    keep: int,
    evaluate: bool,
) -> TrainingArguments:
    return arguments(
        folder,
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(recipe.warmup * recipe.steps),
        weight_decay=recipe.weight_decay,
        adam_beta2=recipe.adam_beta2,
        max_grad_norm=recipe.max_grad_norm,
        gradient_accumulation_steps=recipe.accumulation,
        optim="adamw_torch_fused",
        bf16=recipe.precision == "bf16",
        use_cpu=settings.device == "cpu" or not torch.cuda.is_available(),
        seed=recipe.seed,
        logging_steps=log_every,
        save_steps=checkpoint_every,
        save_total_limit=keep,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=checkpoint_every,
    )


def _settings(
    corpus: Corpus, recipe: Recipe, log_every: int, checkpoint_every: int
) -> dict[str, Any]:
    return {
        "recipe": recipe.to_dict(),
        "corpus": corpus.manifest["files"]["tokens.npy"]["sha256"],
        "vocabulary": corpus.vocabulary.sha256,
        "log_every": log_every,
        "checkpoint_every": checkpoint_every,
    }


def _save(final: Path, model: Pretraining, corpus: Corpus, recipe: Recipe, licence: str) -> None:
    model.encoder.eval()
    checkpoints.save(
        final,
        model.encoder,
        corpus.vocabulary,
        recipe=recipe.to_dict(),
        training_data=corpus.manifest["sources"],
        licence=licence,
    )


def _open_validation(
    validation: Corpus | str | PathLike[str] | None, corpus: Corpus
) -> Corpus | None:
    if validation is None:
        return None
    held_out = validation if isinstance(validation, Corpus) else Corpus.open(validation)
    if held_out.vocabulary.sha256 != corpus.vocabulary.sha256:
        raise InputError(
            "The corpora for training and validation have different vocabularies. "
            "Build both with the same one."
        )
    return held_out


def _check(
    corpus: Corpus, recipe: Recipe, log_every: int, checkpoint_every: int, keep: int
) -> None:
    if corpus.vocabulary.mode != recipe.vocabulary:
        raise InputError(
            f"The corpus has the vocabulary '{corpus.vocabulary.mode}', recipe {recipe.name!r} "
            f"needs '{recipe.vocabulary}'. Build the corpus with "
            f"vocabulary=Vocabulary.bundled({recipe.vocabulary!r}), or pass "
            f"vocabulary={corpus.vocabulary.mode!r} to train."
        )
    if log_every < 1 or checkpoint_every < 1 or checkpoint_every % log_every:
        raise InputError(
            f"Found checkpoint_every={checkpoint_every} and log_every={log_every}; "
            "the first must be a multiple of the second."
        )
    if keep < 2:
        raise InputError(f"Found keep={keep}, expected at least 2.")
