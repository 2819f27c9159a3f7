"""A fine-tuned encoder with its heads, classes and calibration."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import inference
from ..batches import Sequences, add_special
from ..checkpoints import Model
from ..statistics import Calibration
from ._expression import gene_matrix
from ._heads import Head
from ._network import first_tokens
from ._seen import fingerprints

_SHOWN = 8  # names of classes in the text


@dataclass(frozen=True, eq=False, repr=False)
class CellClassifier:
    """An encoder fine-tuned to label cells, made by `scmix.tl.fine_tune`.

    Parameters
    ----------
    model
        The fine-tuned encoder and its vocabulary.
    classes
        Label key to names of its classes, in category order.
    heads
        Label key to what gives the logits.
    pool, hidden_layer
        What stands for a cell: "mean" or "pooler" of this hidden state (0: the embeddings).
    n_genes
        Most genes that are read of a cell, the most distinctive first.
    calibration
        Label key to what is known of the cells set aside; a key without such cells is missing.
    training
        What the classifier was trained on and how: label keys, species, numbers of cells, recipe,
        seed, scores on the cells set aside.
    history
        One row for each record of the training: `step`, `epoch`, `loss`, `learning_rate`,
        `validation_loss`, `validation_accuracy`, `validation_macro_f1`, and `kept`: whether the
        weights are those of this record.
    cells
        uint64: fingerprints of the cells that it was trained or calibrated on.

    Examples
    --------
    >>> import scmix
    >>> cells = scmix.datasets.pancreas()
    >>> cells = cells[cells.obs["species"] == "human"].copy()
    >>> classifier = scmix.tl.fine_tune(cells, "cell_type", species_key="species")
    >>> classifier.label_keys
    ('cell_type',)
    """

    model: Model
    classes: dict[str, np.ndarray]
    heads: dict[str, Head]
    pool: str
    hidden_layer: int
    n_genes: int
    calibration: dict[str, Calibration]
    training: dict[str, Any]
    history: pd.DataFrame
    cells: np.ndarray

    @property
    def label_keys(self) -> tuple[str, ...]:
        """Keys of the labels it gives."""
        return tuple(self.classes)

    def prepare(self, sequences: Sequences, species: int | np.ndarray) -> Sequences:
        """Put special tokens around the genes of each cell, and cut it to what is read.

        Parameters
        ----------
        sequences
            Gene tokens by rank, at least :attr:`n_genes` of each cell where there are so many.
        species
            Species code of each cell, or one for all.
        """
        vocabulary = self.model.vocabulary
        return add_special(
            sequences, vocabulary, species, max_length=self.n_genes + n_special(vocabulary)
        )

    def predict(
        self,
        sequences: Sequences,
        *,
        device: str | None = None,
        dtype: str = "auto",
        batch_tokens: int | None = None,
        progress: bool = False,
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Logits and vectors of cells.

        A cell's logits do not depend on the other cells, their order or the batches.

        Parameters
        ----------
        sequences
            Of :meth:`prepare`.
        device, dtype, batch_tokens, progress
            As in `scmix.inference.run`.

        Returns
        -------
        Label key to logits, float32 (n_cells, n_classes), not yet divided by the temperature of
        the calibration; and the pooled vectors, float32 (n_cells, n_dimensions). Cells without
        genes have rows of NaN in both.
        """
        pooled = inference.run(
            self.model.encoder,
            first_tokens(sequences, self.model.config.max_position_embeddings),
            special_ids=self.model.vocabulary.special_ids,
            pool=self.pool,  # type: ignore[arg-type]
            layer=self.hidden_layer,
            device=device,
            dtype=dtype,
            batch_tokens=batch_tokens,
            progress=progress,
        )
        genes = None
        if any(head.votes is not None for head in self.heads.values()):
            genes = gene_matrix(sequences, self.model.vocabulary)
        return {key: head.logits(pooled, genes) for key, head in self.heads.items()}, pooled

    def seen(self, sequences: Sequences) -> np.ndarray:
        """Whether cells are among those that it was trained or calibrated on.

        A cell is known by the order of its genes, whatever its name; cells with fewer than ten
        genes are not compared.

        Parameters
        ----------
        sequences
            Of :meth:`prepare`.

        Returns
        -------
        Bool (n_cells,).
        """
        marks, comparable = fingerprints(sequences)
        return np.isin(marks, self.cells) & comparable

    def save(self, folder: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Save as a checkpoint folder, whole or not at all.

        `scmix.models.load` opens the encoder in it, :meth:`load` the classifier.

        Parameters
        ----------
        folder
            Where to.
        overwrite
            Replace a checkpoint that is there.
        """
        from ._files import save

        save(self, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: "str | os.PathLike | CellClassifier") -> "CellClassifier":
        """Load a classifier from the folder of :meth:`save`. Nothing in it is ever run."""
        return load(folder)

    def __repr__(self) -> str:
        about = self.training
        lines = [
            f"CellClassifier {self.model.name!r}",
            *(f"  {key}: {_names(names)}" for key, names in self.classes.items()),
            f"  trained on {about['n_training']:,} {' and '.join(about['species'])} cells, "
            f"calibrated on {about['n_validation']:,} ({about['split']})",
            *_chosen(about),
            f"  from {about['base']['name']!r} by recipe {about['recipe']['name']!r}, "
            f"seed {about['recipe']['seed']}",
        ]
        for key, calibration in self.calibration.items():
            score = about["scores"][key]
            lines.append(
                f"  {key} on these: accuracy {score['accuracy']:.3f}, macro-F1 "
                f"{score['macro_f1']:.3f}, temperature {calibration.temperature:.2f}"
            )
        return "\n".join(lines)


def load(folder: str | os.PathLike | CellClassifier) -> CellClassifier:
    """Load a classifier from a folder. Nothing in the folder is ever run.

    Parameters
    ----------
    folder
        Of :meth:`CellClassifier.save`; a classifier is returned as it is.

    Returns
    -------
    The classifier.

    Raises
    ------
    InputError
        There is no such folder.
    ModelFileError
        A file is damaged or unsafe, or the folder holds no classifier.

    Examples
    --------
    >>> import scmix
    >>> cells = scmix.datasets.pancreas()
    >>> cells = cells[cells.obs["species"] == "human"].copy()
    >>> classifier = scmix.tl.fine_tune(cells, "cell_type", species_key="species")
    >>> scmix.classifiers.load(classifier) is classifier
    True
    """
    if isinstance(folder, CellClassifier):
        return folder
    from ._files import load as read

    return read(folder)


def n_special(vocabulary: Any) -> int:
    """Most special tokens around the genes of a cell."""
    return max(len(vocabulary.prefix(code)) for code in (0, 1)) + len(vocabulary.suffix())


def _chosen(about: dict[str, Any]) -> list[str]:
    """By which cells the epoch was chosen, where one was."""
    if not about.get("n_choosing"):
        return []
    which = f"{about['n_choosing']:,} others" if about["chosen_apart"] else "the same cells"
    return [f"  epoch chosen on {which}"]


def _names(names: np.ndarray) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if names.size > _SHOWN else "")
    return f"{names.size} classes ({shown})"
