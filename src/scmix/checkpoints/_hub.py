"""Models from the Hugging Face hub: the only code of scmix that uses the network, when called."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from .._errors import InputError, ResourceError

# Weights, text and dictionaries; no code, and no weights that are pickles.
_SUFFIXES = ("*.safetensors", "*.json", "*.md", "*.txt", "*.csv", "*.csv.gz", "*.pkl")


def download(
    repo_id: str,
    out: str | os.PathLike,
    *,
    revision: str | None = None,
    folders: str | Sequence[str] | None = None,
) -> Path:
    """Download a model from the Hugging Face hub.

    Only weights as safetensors, text, tables and dictionaries are fetched, never code, and
    nothing that is fetched is run. Nothing else in scmix uses the network: `load` takes what this
    function has put on disk. Needs the extra `hub`: `pip install "scmix[hub]"`.

    Parameters
    ----------
    repo_id
        Owner and name of the repository, such as `"ctheodoris/Geneformer"`.
    out
        Folder to put the files into; files that are there and unchanged are not fetched again.
    revision
        Branch, tag or commit; None: the newest. A commit always gives the same files.
    folders
        Only these folders of the repository: published repositories hold many large models.

    Returns
    -------
    `out`: for :func:`load` if it holds a checkpoint of scmix, for :func:`import_geneformer` if it
    holds a published one.

    Raises
    ------
    ImportError
        The extra is not installed.
    InputError
        `repo_id` is no name of a repository, or it has no such files.
    ResourceError
        The hub cannot be reached, or refuses.

    Examples
    --------
    >>> import scmix
    >>> folder = scmix.models.download(  # doctest: +SKIP
    ...     "ctheodoris/Geneformer", "Geneformer", folders=["Geneformer-V1-10M", "geneformer"]
    ... )
    >>> model = scmix.models.import_geneformer(  # doctest: +SKIP
    ...     folder / "Geneformer-V1-10M", "geneformer-v1"
    ... )
    """
    snapshot_download = _hub()
    target = Path(out).expanduser()
    wanted = _wanted(folders)
    try:
        snapshot_download(repo_id, revision=revision, local_dir=str(target), allow_patterns=wanted)
    except ValueError as error:  # what the hub calls a bad name
        raise InputError(f"Found repo_id={repo_id!r}: {error}") from error
    except Exception as error:  # whatever its HTTP client of the day raises
        raise ResourceError(
            f"Could not download {repo_id!r}: {str(error)[:500]}. Check the name, the network and "
            "HF_HUB_OFFLINE; a gated model needs `hf auth login`."
        ) from error
    if not any(target.rglob("*.safetensors")):
        raise InputError(
            f"Found no *.safetensors in {repo_id!r}{f' under {folders}' if folders else ''}; "
            "weights of other kinds are not fetched, as they can run code when opened. Pass other "
            "folders=, or ask its owner for safetensors."
        )
    return target


def _hub() -> Callable[..., object]:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            "scmix.models.download needs huggingface_hub, which is not installed. Install it with "
            'pip install "scmix[hub]".'
        ) from error
    return snapshot_download


def _wanted(folders: str | Sequence[str] | None) -> list[str]:
    """Patterns of the files to fetch; a star also stands for folders within."""
    if folders is None:
        return list(_SUFFIXES)
    chosen = [folders] if isinstance(folders, str) else list(folders)
    for folder in chosen:
        if not isinstance(folder, str) or not folder.strip("/") or set(folder) & set("*?[]"):
            raise InputError(f"Found the folder {folder!r}, expected a name as the hub shows it.")
    return [f"{folder.strip('/')}/{suffix}" for folder in chosen for suffix in _SUFFIXES]
