"""Models: what ships with scmix, what lies on disk, and how to load it."""

import builtins
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..checkpoints._contents import Contents, read_contents
from ..checkpoints._files import read_inside
from ..checkpoints._manifest import CARD, MAX_TEXT_BYTES, WEIGHTS
from ..checkpoints._registry import bundled, checkpoints_in, read_steadily
from ..genes import Vocabulary

if TYPE_CHECKING:
    from ..checkpoints import Model, load
    from ..checkpoints._geneformer import import_geneformer
    from ..checkpoints._hub import download

__all__ = ["list", "load", "vocabulary", "card", "untrained", "download", "import_geneformer"]

# Most of these need torch, which the other functions do not.
_LATER = {"load": "_model", "download": "_hub", "import_geneformer": "_geneformer"}


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(import_module(f"scmix.checkpoints.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> "builtins.list[str]":
    return sorted({*globals(), *_LATER})


def list(folder: str | os.PathLike | None = None) -> pd.DataFrame:
    """Models that can be loaded.

    Parameters
    ----------
    folder
        Also list the checkpoints that lie directly in this folder.

    Returns
    -------
    One row per model: `name` (what `load` takes), `kind` ("bundled" or "local"), `parameters`,
    `species`, `n_genes` (rows of its vocabulary), `licence`, `sha256` (of the weights, as the
    manifest says; `load` checks it).

    Raises
    ------
    ModelFileError
        A checkpoint in `folder` is damaged.

    Examples
    --------
    >>> import scmix
    >>> "scmix-mini" in set(scmix.models.list().name)
    True
    """
    rows = [_row(name, "bundled", path) for name, path in bundled().items()]
    if folder is not None:
        found = checkpoints_in(Path(folder).expanduser())
        rows += [_row(str(path), "local", path) for path in found.values()]
    columns = ("name", "kind", "parameters", "species", "n_genes", "licence", "sha256")
    return pd.DataFrame(rows, columns=columns)


def vocabulary(model: "str | os.PathLike | Model") -> Vocabulary:
    """Return the vocabulary of a model, without loading its weights or torch.

    Parameters
    ----------
    model
        As in :func:`load`.

    Returns
    -------
    What its tokens mean.

    Examples
    --------
    >>> import scmix
    >>> scmix.models.vocabulary("scmix-mini").mode
    'shared'
    """
    if isinstance(model, str | os.PathLike):
        return read_steadily(model, lambda _, folder: _contents_and_genes(folder)[1])
    return model.vocabulary


def card(name: str | os.PathLike) -> str:
    """Return the model card: what the model is, what it was trained on, and how well it does.

    Parameters
    ----------
    name
        As in :func:`load`.

    Returns
    -------
    Markdown.

    Examples
    --------
    >>> import scmix
    >>> text = scmix.models.card("scmix-mini")
    """
    return read_steadily(name, _card)


def untrained(like: "str | os.PathLike | Model" = "scmix-mini", seed: int = 0) -> "Model":
    """Make a model with the sizes and vocabulary of another, and random weights.

    Parameters
    ----------
    like
        As in :func:`load`.
    seed
        The same seed gives the same weights; torch's global random state is left alone.

    Returns
    -------
    The model, to stand beside the trained one in comparisons.

    Examples
    --------
    >>> import scmix
    >>> scmix.models.untrained(seed=1).name
    'scmix-mini-untrained-1'
    """
    from .. import checkpoints

    model = checkpoints.load(like)
    return checkpoints.untrained(
        model.config,
        model.vocabulary,
        seed=seed,
        pooler=model.encoder.has_pooler,
        name=f"{model.name}-untrained-{seed}",
    )


def _contents_and_genes(folder: Path) -> tuple[Contents, Vocabulary]:
    contents = read_contents(folder)
    return contents, contents.vocabulary()


def _card(name: str, folder: Path) -> str:
    contents = read_contents(folder)
    if (contents.folder / CARD).exists():
        return read_inside(contents.folder, CARD, MAX_TEXT_BYTES).decode("utf-8", "replace")
    manifest = contents.manifest or {}
    data = "".join(f"- {item}\n" for item in manifest.get("training_data", [])) or "Not known.\n"
    return (
        f"# {name}\n\n{contents.n_parameters:,} parameters, licence: "
        f"{manifest.get('licence') or 'not known'}\n\n## Training data\n\n{data}"
    )


def _row(name: str, kind: str, path: Path) -> dict[str, object]:
    contents, genes = read_steadily(path, lambda _, folder: _contents_and_genes(folder))
    manifest = contents.manifest or {}
    return {
        "name": name,
        "kind": kind,
        "parameters": contents.n_parameters,
        "species": ", ".join(genes.species),
        "n_genes": len(genes.genes),
        "licence": manifest["licence"],
        "sha256": manifest["files"][WEIGHTS]["sha256"],
    }
