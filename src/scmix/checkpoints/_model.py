"""The model in memory, and the two ways between it and a folder."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .._errors import IncompatibleModelError, InputError, ResourceError
from ..decoders import ValueDecoder
from ..encoder import Config, Encoder
from ..genes import Vocabulary
from . import _config, _decoder, _manifest
from ._contents import Contents, read_contents
from ._files import sha256
from ._folder import write_folder
from ._registry import read_steadily
from ._tensors import read_tensors, weights_bytes

_STORED = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """An encoder with the vocabulary it was trained on.

    Attributes
    ----------
    encoder
        In evaluation mode, float32, on the CPU.
    vocabulary
        What its tokens mean.
    manifest
        Recipe, training data, licence and the hashes of all files.
    name
        Name of a bundled model or of a folder.
    sha256
        Of `model.safetensors`; for an untrained model, of what would be saved.
    path
        The folder; None for a model that was never saved.
    decoder
        Predicts the expression of genes; None for a model that was trained without values.
    """

    encoder: Encoder
    vocabulary: Vocabulary
    manifest: dict
    name: str
    sha256: str
    path: Path | None = None
    decoder: ValueDecoder | None = None

    @property
    def config(self) -> Config:
        """Sizes of the encoder."""
        return self.encoder.config

    @property
    def n_parameters(self) -> int:
        """Numbers in the encoder and its head."""
        return sum(parameter.numel() for parameter in self.encoder.parameters())

    def __repr__(self) -> str:
        config, genes = self.config, self.vocabulary.genes["species"].value_counts()
        n_genes = ", ".join(f"{genes[name]:,} {name}" for name in sorted(genes.index))
        return (
            f"Model {self.name!r}: {config.num_hidden_layers} layers, width {config.hidden_size}, "
            f"{config.num_attention_heads} heads, {self.n_parameters / 1e6:.2f} M parameters\n"
            f"  vocabulary: {self.vocabulary.mode}, {n_genes} genes, "
            f"{self.vocabulary.n_tokens:,} tokens\n"
            f"  sha256: {self.sha256[:12]}"
        )


def save(
    folder: str | os.PathLike,
    encoder: Encoder,
    vocabulary: Vocabulary,
    *,
    recipe: dict,
    training_data: list,
    licence: str,
    card: str = "",
    dtype: str = "float32",
    decoder: ValueDecoder | None = None,
    overwrite: bool = False,
) -> None:
    """Save a checkpoint, whole or not at all.

    The folder also opens with `transformers.BertForMaskedLM.from_pretrained`. It is written
    beside its place and moved there at the end, so after a crash, a full disk or Ctrl-C the
    old checkpoint is as it was. A process that is killed may leave a hidden folder
    `.<name>.partial-...` behind, which can be deleted.

    Parameters
    ----------
    folder
        Where to. Parents are made.
    encoder, vocabulary
        The model.
    recipe
        Settings that the encoder was trained with: anything that JSON can hold.
    training_data
        Names or descriptions of the data sets.
    licence
        Under which others may use the weights.
    card
        Model card in Markdown, saved as README.md.
    dtype
        "float32", or "float16" for half the size on disk; loaded as float32 either way.
    decoder
        The value decoder that was trained with the encoder, saved beside it.
    overwrite
        Replace a checkpoint that is there. A folder that holds anything else is never replaced.

    Raises
    ------
    InputError
        The folder exists, or an argument cannot be saved.
    ResourceError
        The disk is full or cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> from scmix import checkpoints
    >>> from scmix.encoder import Config
    >>> from scmix.genes import Vocabulary
    >>> vocabulary = Vocabulary.bundled()
    >>> config = Config(vocab_size=vocabulary.n_tokens, hidden_size=8, num_hidden_layers=1)
    >>> model = checkpoints.untrained(config, vocabulary, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints.save(
    ...         f"{folder}/tiny", model.encoder, vocabulary,
    ...         recipe={"epochs": 0}, training_data=[], licence="CC0-1.0",
    ...     )
    ...     checkpoints.load(f"{folder}/tiny").name
    'tiny'
    """
    _check_saveable(encoder, vocabulary, recipe, training_data, licence, dtype)
    files = {
        _manifest.WEIGHTS: weights_bytes(encoder.state_dict(), _STORED[dtype]),
        _manifest.CONFIG: config_text(encoder.config),
        _manifest.VOCABULARY: vocabulary_bytes(vocabulary),
    }
    if decoder is not None:
        _decoder.check_fit(decoder, encoder)
        files |= _decoder.files_of(decoder, _STORED[dtype])
    if card:
        files[_manifest.CARD] = card.encode("utf-8")
    files[_manifest.MANIFEST] = _manifest.build(
        files, recipe=recipe, training_data=training_data, licence=licence
    )
    write_folder(Path(folder).expanduser(), files, overwrite=overwrite, replaceable=_manifest.NAMES)


def load(
    name_or_path: str | os.PathLike | Model,
    *,
    vocabulary: Vocabulary | None = None,
    verify: bool = True,
) -> Model:
    """Load a model by name or from a folder. Nothing in the folder is ever run.

    Parameters
    ----------
    name_or_path
        A name of `models.list()`, the folder of a checkpoint, or of a
        `transformers.BertForMaskedLM` (then `vocabulary` is needed). A `Model` is returned as
        it is.
    vocabulary
        What the tokens mean, for a folder that does not say so itself.
    verify
        Compare every file with the hash in the manifest. False saves about 0.1 s per 100 MB.

    Returns
    -------
    The model, its encoder in evaluation mode, float32, on the CPU.

    Raises
    ------
    InputError
        No such model.
    ModelFileError
        A file is damaged, unsafe or of another kind. Its subclass `IncompatibleModelError`: the
        files are sound but made for something else.

    Examples
    --------
    >>> import scmix
    >>> model = scmix.models.load("scmix-mini")
    >>> model.config.num_hidden_layers > 0
    True
    """
    if isinstance(name_or_path, Model):
        return name_or_path
    return read_steadily(
        name_or_path,
        lambda name, folder: _read(name, folder, vocabulary, verify),
        is_whole=lambda model: verify and "files" in model.manifest,
    )


def untrained(
    config: Config,
    vocabulary: Vocabulary,
    *,
    seed: int = 0,
    pooler: bool = False,
    name: str | None = None,
) -> Model:
    """A model with random weights; the same seed gives the same weights.

    Parameters
    ----------
    config, vocabulary
        Sizes, and what the tokens mean.
    seed
        Not negative. Torch's global random state is left alone.
    pooler
        Whether the encoder has a pooler.
    name
        Of the model; None: "untrained-<seed>".

    Returns
    -------
    The model, never saved: its `path` is None.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"Found seed={seed!r}, expected an integer from 0 to 2**63 - 1.")
    _check_fit(config, vocabulary)
    encoder = _random_encoder(config, pooler=pooler, seed=seed).eval()
    recipe = {"name": "untrained", "seed": seed}
    manifest = {"recipe": recipe, "training_data": [], "licence": ""}
    return Model(
        encoder, vocabulary, manifest, name or f"untrained-{seed}", weights_sha256(encoder)
    )


def weights_sha256(encoder: Encoder) -> str:
    """Of the `model.safetensors` that would be saved, as float32."""
    return sha256(weights_bytes(encoder.state_dict()))


def _read(name: str, folder: Path, given: Vocabulary | None, verify: bool) -> Model:
    return model_of(name, read_contents(folder, verify=verify), given)[0]


def model_of(
    name: str, contents: Contents, given: Vocabulary | None = None
) -> tuple[Model, dict[str, Tensor]]:
    """The model that a folder holds, and all tensors of its weights."""
    vocabulary = contents.vocabulary(given)
    entries, content, digest = contents.weights()
    tensors = read_tensors(entries, content, contents.folder / _manifest.WEIGHTS)
    encoder = _encoder(contents, tensors)
    manifest = contents.manifest or {"recipe": {}, "training_data": [], "licence": ""}
    decoder = _decoder.read(contents, encoder.config)
    return Model(encoder, vocabulary, manifest, name, digest, contents.folder, decoder), tensors


def _encoder(contents: Contents, tensors: dict[str, Tensor]) -> Encoder:
    own = {name: x for name, x in tensors.items() if name.startswith(("bert.", "cls."))}
    try:
        config = Config.from_dict(contents.settings)
        encoder = _random_encoder(config, pooler="bert.pooler.dense.weight" in own)
        encoder.load_state_dict(own, assign=True)
    except IncompatibleModelError as error:
        raise IncompatibleModelError(f"{contents.folder}: {error}") from error
    return encoder.eval()


def _random_encoder(config: Config, *, pooler: bool, seed: int = 0) -> Encoder:
    # For weights that are replaced anyway, the meta device would draw none, but its first use
    # imports for 2 s; drawing 12 M takes 0.2 s.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return Encoder(config, pooler=pooler)


def config_text(config: Config, classes: list[str] | None = None) -> bytes:
    """The config.json of an encoder, with the classes of its head if it has one."""
    return _manifest.to_text(_config.to_json(config.to_dict(), classes), "the configuration")


def vocabulary_bytes(vocabulary: Vocabulary) -> bytes:
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _manifest.VOCABULARY
            vocabulary.write(path)
            return path.read_bytes()
    except OSError as error:
        raise ResourceError(
            f"Could not write to {tempfile.gettempdir()}: {error.strerror or error}. Free some "
            "space there, or name another folder in the environment variable TMPDIR."
        ) from error


def _check_saveable(
    encoder: Encoder,
    vocabulary: Vocabulary,
    recipe: dict,
    training_data: list,
    licence: str,
    dtype: str,
) -> None:
    _check_fit(encoder.config, vocabulary)
    if not isinstance(recipe, dict) or not isinstance(training_data, list):
        raise InputError(
            f"Found recipe of type {type(recipe).__name__} and training_data of type "
            f"{type(training_data).__name__}, expected a dict and a list."
        )
    if not isinstance(licence, str) or not licence.strip():
        raise InputError(f"Found licence={licence!r}, expected a text such as 'CC-BY-4.0'.")
    if dtype not in _STORED:
        raise InputError(f"Found dtype={dtype!r}, expected one of {', '.join(_STORED)}.")


def _check_fit(config: Config, vocabulary: Vocabulary) -> None:
    if config.vocab_size != vocabulary.n_tokens:
        raise InputError(
            f"Found vocab_size {config.vocab_size:,} in the configuration and "
            f"{vocabulary.n_tokens:,} tokens in the vocabulary, expected the same number."
        )
