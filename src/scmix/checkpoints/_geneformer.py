"""Published models of the Geneformer family, as their users have them on disk, made checkpoints."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .._errors import IncompatibleModelError, InputError, ModelFileError
from ..encoder import Config, Encoder
from ..genes import Vocabulary
from . import _config, _dictionaries, _manifest
from ._contents import _check_folder
from ._files import open_inside, parse_json, sha256
from ._folder import check_target
from ._foreign_genes import genes_of, to_vocabulary
from ._model import Model, load, save
from ._safetensors import FLOATS, MAX_BYTES, Entry, check_tensors, read_header
from ._tensors import read_tensors

_HEAD = "cls.predictions."
_DROPPED = ("classifier.", "cls.seq_relationship.")
_BARE = ("embeddings.", "encoder.", "pooler.")  # as `transformers.BertModel` saves itself

PathLike = str | os.PathLike


def import_geneformer(
    folder: PathLike,
    out: PathLike,
    *,
    token_dictionary: PathLike | None = None,
    gene_median: PathLike | Sequence[PathLike] | None = None,
    gene_names: PathLike | None = None,
    licence: str = "not stated",
    overwrite: bool = False,
) -> Model:
    """Make a checkpoint of scmix from a published Geneformer, Mouse- or Mix-Geneformer.

    Every token keeps its published number and every median its digits, so cells become the
    published sequences (in the order of tokens where scores are exactly equal, which the
    published code leaves open), with `<cls>` and `<eos>` around them where the model knows these.
    Nothing in a file is run: dictionaries saved as pickles are read by a reader that knows names
    and numbers only, weights are read as safetensors only.

    Parameters
    ----------
    folder
        With `config.json` and `model.safetensors`: a `BertForMaskedLM`, or a classifier that was
        made from one, of which the encoder is kept.
    out
        Folder of the checkpoint, for `load` and everything that takes a model.
    token_dictionary
        Gene or special token to token: a pickle, a JSON object, or a CSV file of two columns.
        None: the file named `*token_dictionary*` that has as many entries as the model has
        tokens, in the folder, its parent, or where the published repository keeps it.
    gene_median
        Ensembl id to non-zero median, likewise; several files are taken together. None: the file
        named `*gene_median*` that has exactly the genes of the token dictionary.
    gene_names
        Symbol or other name to Ensembl id, likewise. None: `*gene_name_id*` beside the token
        dictionary. Symbols of the bundled vocabulary are known in any case.
    licence
        Under which the model was published, such as `"Apache-2.0"`.
    overwrite
        Replace a checkpoint that is there.

    Returns
    -------
    The model, loaded from `out`.

    Raises
    ------
    InputError
        `out` exists, or several files fit.
    ModelFileError
        A file is damaged or unsafe. Its subclass `IncompatibleModelError`: weights and
        dictionaries do not belong together, or the weights are of another kind of model.

    Examples
    --------
    A tiny model in place of the published weights:

    >>> import json, tempfile, scmix
    >>> from pathlib import Path
    >>> from transformers import BertConfig, BertForMaskedLM
    >>> temporary = tempfile.TemporaryDirectory()
    >>> folder = Path(temporary.name)
    >>> sizes = dict.fromkeys(("hidden_size", "intermediate_size", "max_position_embeddings"), 8)
    >>> config = BertConfig(vocab_size=4, num_hidden_layers=1, num_attention_heads=1, **sizes)
    >>> BertForMaskedLM(config).save_pretrained(folder)
    >>> tokens = {"<pad>": 0, "<mask>": 1, "ENSG00000111640": 2, "ENSG00000198851": 3}
    >>> medians = {"ENSG00000111640": 9.5, "ENSG00000198851": 2.25}
    >>> for name, values in {"token_dictionary": tokens, "gene_median": medians}.items():
    ...     _ = (folder / f"{name}.json").write_text(json.dumps(values))
    >>> model = scmix.models.import_geneformer(folder, folder / "imported")
    >>> model.vocabulary.token_names().tolist()
    ['<pad>', '<mask>', 'GAPDH', 'CD3E']
    """
    source, target = Path(folder).expanduser(), Path(out).expanduser()
    _check_folders(source, target, overwrite=overwrite)
    settings, architecture = _read_config(source)
    vocabulary, used = _read_genes(source, settings, token_dictionary, gene_median, gene_names)
    encoder, has_head, dtype = _read_encoder(source, settings)
    recipe = {
        "name": "imported",
        "architecture": architecture,
        "language_model_head": has_head,
        "files": {path.name: _digest(path) for path in (source / _manifest.WEIGHTS, *used)},
    }
    save(
        target,
        encoder,
        vocabulary,
        recipe=recipe,
        training_data=[f"not recorded: imported from {source.resolve().name}"],
        licence=licence,
        dtype=dtype,
        overwrite=overwrite,
    )
    return load(target)


def _check_folders(source: Path, target: Path, *, overwrite: bool) -> None:
    _check_folder(source)
    if (source / _manifest.MANIFEST).exists():
        raise InputError(f"{source} is a checkpoint of scmix already. Pass it to models.load.")
    real = Path(os.path.realpath(target))
    if real == Path(os.path.realpath(source)):
        raise InputError(f"Found out={str(target)!r}, the folder that is imported; name another.")
    check_target(real, overwrite=overwrite, replaceable=_manifest.NAMES)


def _read_config(source: Path) -> tuple[dict, str]:
    path = source / _manifest.CONFIG
    content = parse_json(_dictionaries.read_bytes(path, _manifest.MAX_TEXT_BYTES), path)
    named = content.get("architectures") or [_config.ARCHITECTURE]
    if not isinstance(named, list) or not str(named[0]).startswith("Bert"):
        raise IncompatibleModelError(
            f"{path} describes {str(named)[:80]}, expected a model of the Geneformer family, "
            f"such as {_config.ARCHITECTURE}."
        )
    # Which weights there are is seen from the weights themselves.
    content["architectures"] = [_config.ARCHITECTURE]
    return _config.from_json(content, path), str(named[0])


def _read_genes(
    source: Path,
    settings: dict,
    token_dictionary: PathLike | None,
    gene_median: PathLike | Sequence[PathLike] | None,
    gene_names: PathLike | None,
) -> tuple[Vocabulary, list[Path]]:
    """The vocabulary, and the files that it was made of."""
    n_tokens = settings["vocab_size"]
    token_path = _path(token_dictionary) or _dictionaries.find_tokens(source, n_tokens)
    tokens = _dictionaries.read_tokens(token_path)
    _check_tokens(tokens, settings, token_path, source)
    median_paths = _median_paths(gene_median, tokens, source)
    medians: dict[str, float] = {}
    for path in median_paths:
        medians |= _dictionaries.read_medians(path)
    names_path = _path(gene_names) or _dictionaries.find_names(token_path)
    names = _read_names(names_path, required=gene_names is not None)
    vocabulary = to_vocabulary(tokens, medians, names)
    _report_unused(vocabulary)
    return vocabulary, [token_path, *median_paths, *([names_path] if names_path and names else [])]


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path).expanduser()


def _check_tokens(tokens: dict[str, int], settings: dict, path: Path, source: Path) -> None:
    """Whether weights and token dictionary can belong together."""
    for what, stated, found in (
        ("vocab_size", settings["vocab_size"], len(tokens)),
        ("pad_token_id", settings["pad_token_id"], tokens["<pad>"]),
    ):
        if stated != found:
            raise IncompatibleModelError(
                f"{source} has {what} {stated:,}, but it is {found:,} in {path}; expected the "
                "same. Pass the token dictionary that the model was trained with."
            )


def _median_paths(
    given: PathLike | Sequence[PathLike] | None, tokens: dict[str, int], source: Path
) -> list[Path]:
    if given is None:
        return [_dictionaries.find_medians(source, genes_of(tokens))]
    several = [given] if isinstance(given, str | os.PathLike) else given
    return [Path(path).expanduser() for path in several]


def _read_names(path: Path | None, *, required: bool) -> dict[str, str]:
    """Names of genes; files that nobody asked for may be unreadable."""
    try:
        return _dictionaries.read_names(path) if path else {}
    except ModelFileError as error:
        if required:
            raise
        _warn(f"Names of genes were left out: {error}")
        return {}


def _report_unused(vocabulary: Vocabulary) -> None:
    unused = [name for name in vocabulary.special if not name.startswith("<")]
    if unused:
        _warn(
            f"{len(unused):,} of {vocabulary.n_tokens:,} tokens are no human or mouse Ensembl id "
            f"with a median ({', '.join(unused[:3])}); the model never sees them in a cell."
        )


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=5)  # who called import_geneformer


def _read_encoder(source: Path, settings: dict) -> tuple[Encoder, bool, str]:
    """The encoder, whether its language model head was there, and how it is best saved."""
    entries, content = _read_weights(source)
    path = source / _manifest.WEIGHTS
    has_head = any(name.startswith(_HEAD) for name in entries)
    check_tensors(entries, _expected(settings, entries, has_head=has_head), path)
    floats = {name: entry for name, entry in entries.items() if entry.dtype in FLOATS}
    tensors = read_tensors(floats, content, path)
    if not has_head:
        tensors |= _silent_head(settings)
    with torch.random.fork_rng(devices=[]):  # weights are drawn, only to be replaced
        encoder = Encoder(Config.from_dict(settings), pooler="bert.pooler.dense.weight" in tensors)
    try:
        encoder.load_state_dict(tensors, assign=True)
    except IncompatibleModelError as error:
        raise IncompatibleModelError(f"{source}: {error}") from error
    halves = all(entry.dtype in ("F16", "I64") for entry in entries.values())
    return encoder.eval(), has_head, "float16" if halves else "float32"


def _read_weights(source: Path) -> tuple[dict[str, Entry], memoryview]:
    """Tensors by the names that they have in a `BertForMaskedLM`, and the bytes they lie in."""
    path = Path(os.path.realpath(source / _manifest.WEIGHTS))  # a link in the cache of the hub
    with open_inside(path.parent, path.name, MAX_BYTES) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        _dictionaries.refuse_pointer(file.read(64), path)
        file.seek(0)
        entries = read_header(file, n_bytes, path)
    content = memoryview(_dictionaries.read_bytes(path, MAX_BYTES))
    start = n_bytes - max((entry.stop for entry in entries.values()), default=0)
    bare = not any(name.startswith("bert.") for name in entries)
    named = {
        f"bert.{name}" if bare and name.startswith(_BARE) else name: entry
        for name, entry in entries.items()
        if not name.startswith(_DROPPED)
    }
    return named, content[start:]


def _expected(
    settings: dict, entries: dict[str, Entry], *, has_head: bool
) -> dict[str, tuple[int, ...]]:
    pooler = any(name.startswith("bert.pooler.") for name in entries)
    redundant = _config.redundant_shapes(settings)
    shapes = _config.tensor_shapes(settings, pooler=pooler)
    shapes |= {name: shape for name, shape in redundant.items() if name in entries}
    return {name: shape for name, shape in shapes.items() if has_head or not name.startswith(_HEAD)}


def _silent_head(settings: dict) -> dict[str, Tensor]:
    """A language model head that says nothing: every token is as likely as any other."""
    shapes = _config.tensor_shapes(settings, pooler=False)
    head = {name: torch.zeros(shape) for name, shape in shapes.items() if name.startswith(_HEAD)}
    head[f"{_HEAD}transform.LayerNorm.weight"] += 1
    return head


def _digest(path: Path) -> str:
    return sha256(_dictionaries.read_bytes(path, MAX_BYTES))
