"""What a checkpoint says about itself, read and checked without torch and without its weights."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from .._errors import IncompatibleModelError, InputError, ModelFileError
from ..decoders._settings import Settings, tensor_shapes
from ..genes import Vocabulary
from . import _config, _labels, _manifest
from ._files import gunzip, open_inside, parse_json, read_inside, sha256
from ._manifest import (
    CALIBRATION,
    CONFIG,
    DECODER,
    DECODER_SETTINGS,
    LABELS,
    MANIFEST,
    MAX_TEXT_BYTES,
    VOCABULARY,
    WEIGHTS,
)
from ._safetensors import MAX_BYTES, Entry, check_tensors, read_header

_MAX_VOCABULARY_BYTES = 2**24
_MAX_VOCABULARY_TEXT_BYTES = 2**25  # the bundled one has 4 MB
_PICKLES = ("pytorch_model.bin", "pytorch_model.pt", "model.pt", "model.pkl", "model.ckpt")


@dataclass(frozen=True)
class Contents:
    """A checkpoint without its weights.

    `manifest` is None for a plain BERT folder, `labels` for anything but a classifier, `decoder`
    for a model without a value decoder.
    """

    folder: Path
    manifest: dict | None
    settings: dict
    verify: bool
    labels: dict | None = None
    decoder: Settings | None = None

    @property
    def n_parameters(self) -> int:
        """Numbers in the encoder and its head, without a pooler."""
        return sum(map(prod, _config.tensor_shapes(self.settings, pooler=False).values()))

    def vocabulary(self, given: Vocabulary | None = None) -> Vocabulary:
        """The checkpoint's own vocabulary; for a plain BERT folder the given one."""
        found = self._own_vocabulary() if self.manifest else given
        if found is None:
            raise IncompatibleModelError(
                f"{self.folder} has no {MANIFEST}: it is a plain {_config.ARCHITECTURE}, which "
                "does not say what its tokens mean. Pass vocabulary=, or a checkpoint that "
                "scmix saved; models.import_geneformer makes one of a published Geneformer."
            )
        if given is not None and given.sha256 != found.sha256:
            raise IncompatibleModelError(
                f"{self.folder} was trained with another vocabulary ({found.n_tokens:,} tokens, "
                f"mode {found.mode!r}) than the one given ({given.n_tokens:,} tokens, mode "
                f"{given.mode!r}). Leave vocabulary out."
            )
        if found.n_tokens != self.settings["vocab_size"]:
            raise IncompatibleModelError(
                f"{self.folder} has vocab_size {self.settings['vocab_size']:,}, its vocabulary "
                f"{found.n_tokens:,} tokens; expected the same. Use the vocabulary that the model "
                "was trained with."
            )
        return found

    def weights(self) -> tuple[dict[str, Entry], memoryview, str]:
        """Where each tensor lies, the bytes they lie in, and the sha256 of the file."""
        heads = _labels.head_shapes(self.labels, self.settings) if self.labels else {}
        return self._tensors(
            WEIGHTS, lambda entries: _expected_tensors(self.settings, entries) | heads
        )

    def calibration(self) -> tuple[dict[str, Entry], memoryview, str]:
        """The same of the arrays that a classifier is calibrated by."""
        shapes = _labels.calibration_shapes(self.labels or {}, self.settings)
        return self._tensors(CALIBRATION, lambda _: shapes)

    def decoder_weights(self) -> tuple[dict[str, Entry], memoryview, str]:
        """The same of the value decoder, where there is one."""
        sizes = {name: self.settings[name] for name in ("hidden_size", "vocab_size")}
        shapes = tensor_shapes(self.decoder, **sizes) if self.decoder else {}
        return self._tensors(DECODER, lambda _: shapes)

    def _tensors(
        self, name: str, expected: Callable[[dict[str, Entry]], dict[str, tuple[int, ...]]]
    ) -> tuple[dict[str, Entry], memoryview, str]:
        path = self.folder / name
        with open_inside(self.folder, name, MAX_BYTES) as file:
            n_bytes = os.fstat(file.fileno()).st_size
            _manifest.check_size(self.manifest, path, n_bytes)
            entries = read_header(file, n_bytes, path)
            check_tensors(entries, expected(entries), path)
        content = read_inside(self.folder, name, n_bytes)
        digest = sha256(content)
        if self.verify:
            _manifest.check_hash(self.manifest, path, digest)
        start = n_bytes - max(entry.stop for entry in entries.values())
        return entries, memoryview(content)[start:], digest

    def _own_vocabulary(self) -> Vocabulary:
        path = self.folder / VOCABULARY
        content = _read_checked(path, _MAX_VOCABULARY_BYTES, self.manifest, self.verify)
        gunzip(content, _MAX_VOCABULARY_TEXT_BYTES, path)
        try:
            return Vocabulary.read(path)
        except Exception as error:  # whatever a parser makes of a file that nobody vouches for
            raise ModelFileError(
                f"{path} is not a vocabulary: {error}. Copy the model again."
            ) from error


def read_contents(folder: Path, *, verify: bool = True) -> Contents:
    """Open a checkpoint or a plain `BertForMaskedLM` folder."""
    _check_folder(folder)
    manifest = _manifest.read_from(folder) if (folder / MANIFEST).exists() else None
    path = folder / CONFIG
    raw = _read_checked(path, MAX_TEXT_BYTES, manifest, verify)
    labels = None
    if manifest and LABELS in manifest["files"]:
        text = _read_checked(folder / LABELS, _labels.MAX_BYTES, manifest, verify)
        labels = _labels.read(text, folder / LABELS)
    settings = _config.from_json(parse_json(raw, path), path, classifier=labels is not None)
    return Contents(folder, manifest, settings, verify, labels, _decoder(folder, manifest, verify))


def _decoder(folder: Path, manifest: dict | None, verify: bool) -> Settings | None:
    if manifest is None or DECODER_SETTINGS not in manifest["files"]:
        return None
    path = folder / DECODER_SETTINGS
    content = parse_json(_read_checked(path, MAX_TEXT_BYTES, manifest, verify), path)
    try:
        settings = Settings(**content)
        if settings.to_dict() != content:
            raise TypeError("a setting is missing")
    except (InputError, TypeError) as error:
        raise ModelFileError(
            f"{path} does not describe a value decoder: {str(error)[:200]} Copy the model again."
        ) from error
    return settings


def _read_checked(path: Path, max_bytes: int, manifest: dict | None, verify: bool) -> bytes:
    content = read_inside(path.parent, path.name, max_bytes)
    _manifest.check_size(manifest, path, len(content))
    if verify:
        _manifest.check_hash(manifest, path, sha256(content))
    return content


def _expected_tensors(settings: dict, entries: dict[str, Entry]) -> dict[str, tuple[int, ...]]:
    pooler = any(name.startswith("bert.pooler.") for name in entries)
    redundant = _config.redundant_shapes(settings)
    present = {name: shape for name, shape in redundant.items() if name in entries}
    return _config.tensor_shapes(settings, pooler=pooler) | present


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise ModelFileError(f"{folder} {found}, expected a folder with {WEIGHTS} and {CONFIG}.")
    if os.path.lexists(folder / WEIGHTS):
        return
    pickles = [name for name in _PICKLES if (folder / name).exists()]
    if pickles:
        raise ModelFileError(
            f"{folder} holds its weights as {pickles[0]}, a Python pickle, which can run code when "
            f"opened; expected {WEIGHTS}. If you trust it, convert it with transformers: "
            f'{_config.ARCHITECTURE}.from_pretrained("{folder}").save_pretrained("<new folder>").'
        )
    raise ModelFileError(
        f"{folder} has no {WEIGHTS}; expected a checkpoint of scmix or a {_config.ARCHITECTURE} "
        "saved by transformers in one piece."
    )
