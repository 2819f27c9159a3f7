"""Train an encoder on a corpus by a recipe."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from safetensors.torch import load_model
from transformers import TrainingArguments

from .. import checkpoints
from .._errors import InputError
from .._history import History
from .._run_folder import agree_on_settings, disk_errors, last_checkpoint, sole_run
from .._training import own_random_state
from ..checkpoints import Model
from ._distributed import from_first, wait_for_all
from ._probes import Labels
from ._run_options import RunOptions
from ._start import check_vocabulary, first_values, new_model, recipe_for
from ._trainer import Trainer
from ._validation import Validation
from .corpus import Corpus
from .model import Pretraining
from .profiles import check_values
from .recipes import Recipe
from .stream import Stream


def train(
    corpus: Corpus | str | PathLike[str],
    out: str | PathLike[str],
    recipe: str | Recipe = "mix-geneformer",
    *,
    start: str | PathLike[str] | Model | None = None,
    resume: bool = True,
    validation: Corpus | str | PathLike[str] | None = None,
    labels: Mapping[str, ArrayLike] | Sequence[str] | None = None,
    log_every: int = 10,
    validate_every: int | None = None,
    checkpoint_every: int = 500,
    keep: int = 2,
    licence: str = "not stated",
    **overrides: Any,
) -> Path:
    """Pretrain an encoder with `transformers.Trainer`.

    A run that was interrupted, even killed, goes on from its last complete checkpoint when it is
    called again. On CPU, with the same number of threads, it ends with the same bits as one that
    was never interrupted: batches, masks and dropout depend on the recipe's seed and the step only.

    Several GPUs: start a script that calls this with ``torchrun`` or ``accelerate launch``. Each of
    N processes trains on batches of its own, so a step has N x ``accumulation`` of them; which
    these are depends on their number only, so two processes see what one sees with twice the
    ``accumulation``, and end at the same losses. Contrasts compare the cells of all processes. The
    device is that of ``scmix.settings.device``.

    Parameters
    ----------
    corpus
        From :func:`build_corpus`, in the vocabulary mode that the recipe names.
    out
        Folder of the run: ``settings.json``, ``history.jsonl``, ``checkpoint-<step>/``, and at
        the end ``final/``, which ``scmix.models.load`` opens.
    recipe
        Name of a recipe, or a :class:`Recipe`.
    start
        Model to continue from, as `scmix.models.load` takes it: its weights and sizes are kept, and
        the recipe's ``init`` does not apply. Its vocabulary must be that of the corpus; see
        :func:`extend_vocabulary`. None: a new model.
    resume
        Go on with a run that is in ``out``; False: refuse a folder that has one.
    validation
        Corpus of held-out cells. Before the first step and then every ``validate_every`` steps the
        loss of every objective on them, with fixed masks, is written to the history for each
        species, and how well the model's vectors tell cells with labels apart.
    labels
        Kinds of labels of the held-out cells: names of columns that ``validation`` was built with
        (``Source(keep=...)``), or arrays of text by name, one entry per cell, "" for none. None:
        all columns that it keeps, but the organ.
    log_every
        Steps between records of the history; each holds means over these steps. A kill does not
        change them: ``checkpoint_every`` must be a multiple.
    validate_every
        Steps between validations; None: ``checkpoint_every``.
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
    ResourceError
        The disk is full. Checkpoints from before stay, and the same call goes on from there.

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
    held_out = _open_validation(validation, labels, corpus)
    model = None if start is None else checkpoints.load(start)
    settled = recipe_for(recipe, model, overrides)
    options = RunOptions(log_every, validate_every, checkpoint_every, keep)
    _check_mode(corpus, settled)
    check_vocabulary(model, corpus)
    check_values(corpus, settled)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    args = options.arguments(folder, settled, validate=held_out is not None)
    run = _Run(folder, corpus, settled, args, model, held_out, labels)
    with own_random_state(), disk_errors(folder), sole_run(folder, args.process_index):
        if run.is_first:
            agree_on_settings(folder, run.settings | options.to_dict(), resume)
        wait_for_all()
        if not (folder / "final").is_dir():
            run.train(licence)
            wait_for_all()
    return folder / "final"


@dataclass
class _Run:
    """One process's part of a run."""

    folder: Path
    corpus: Corpus
    recipe: Recipe
    args: TrainingArguments
    start: Model | None
    held_out: Corpus | None
    labels: Labels

    @property
    def is_first(self) -> bool:
        return self.args.process_index == 0

    @property
    def settings(self) -> dict[str, Any]:
        """What a run that resumes must have in common with the one before."""
        start = {} if self.start is None else {"start": self.start.sha256}
        several = {} if self.args.world_size == 1 else {"processes": self.args.world_size}
        return {
            "recipe": self.recipe.to_dict(),
            "corpus": _digest(self.corpus),
            "vocabulary": self.corpus.vocabulary.sha256,
            **start,
            **several,
        }

    def train(self, licence: str) -> None:
        """Train from the last checkpoint to the end, and save the model."""
        # One process looks, and clears away what is broken, for all.
        step = from_first(lambda: (last_checkpoint(self.folder) or (-1,))[0])
        checkpoint = None if step < 0 else self.folder / f"checkpoint-{step}"
        model = new_model(self.corpus, self.recipe, self.start)
        if checkpoint is not None and step >= self.recipe.steps:
            load_model(model, str(checkpoint / "model.safetensors"))
        else:
            model = self._continue(model, step, checkpoint)
        if self.is_first:
            self._save(model, licence)

    def _continue(self, model: Pretraining, step: int, checkpoint: Path | None) -> Pretraining:
        if checkpoint is None:
            first_values(model, self.corpus, self.recipe, self.start)
        trainer = Trainer(
            model,
            self.args,
            Stream(
                self.corpus,
                self.recipe,
                model.views,
                rank=self.args.process_index,
                world=self.args.world_size,
            ),
            self.recipe,
            History(self.folder / "history.jsonl", step) if self.is_first else None,
            self._validation(model),
        )
        self.args.eval_on_start = self.held_out is not None and checkpoint is None
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return trainer.trained(lambda: new_model(self.corpus, self.recipe, self.start))

    def _validation(self, model: Pretraining) -> Validation | None:
        if self.held_out is None:
            return None
        return Validation(self.held_out, self.corpus, self.recipe, model, self.labels)

    def _save(self, model: Pretraining, licence: str) -> None:
        model.encoder.eval()
        recipe = self.recipe.to_dict()
        if self.start is not None:
            recipe["start"] = {"name": self.start.name, "sha256": self.start.sha256}
        checkpoints.save(
            self.folder / "final",
            model.encoder,
            self.corpus.vocabulary,
            recipe=recipe,
            training_data=self.corpus.manifest["sources"],
            licence=licence,
            decoder=getattr(model, "decoder", None),
        )


def _open_validation(
    validation: Corpus | str | PathLike[str] | None,
    labels: Labels,
    corpus: Corpus,
) -> Corpus | None:
    if validation is None:
        if labels:
            raise InputError("Found labels without a validation corpus; pass validation=.")
        return None
    held_out = validation if isinstance(validation, Corpus) else Corpus.open(validation)
    if held_out.vocabulary.sha256 != corpus.vocabulary.sha256:
        raise InputError(
            "The corpora for training and validation have different vocabularies. "
            "Build both with the same one."
        )
    return held_out


def _digest(corpus: Corpus) -> str:
    files = json.dumps(corpus.manifest["files"], sort_keys=True)
    return hashlib.sha256(files.encode()).hexdigest()


def _check_mode(corpus: Corpus, recipe: Recipe) -> None:
    if corpus.vocabulary.mode != recipe.vocabulary:
        raise InputError(
            f"The corpus has the vocabulary '{corpus.vocabulary.mode}', recipe {recipe.name!r} "
            f"needs '{recipe.vocabulary}'. Build the corpus with "
            f"vocabulary=Vocabulary.bundled({recipe.vocabulary!r}), or pass "
            f"vocabulary={corpus.vocabulary.mode!r} to train."
        )
