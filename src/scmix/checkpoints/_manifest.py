"""manifest.json: what a checkpoint consists of, and where it comes from."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from .._errors import IncompatibleModelError, InputError, ModelFileError
from ._files import parse_json, read_inside, sha256

FORMAT = "scmix checkpoint"
FORMAT_VERSION = 2  # 2: may hold a value decoder

WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocabulary.csv.gz"
CARD, MANIFEST = "README.md", "manifest.json"
LABELS, CALIBRATION = "labels.json", "calibration.safetensors"  # of a classifier
DECODER, DECODER_SETTINGS = "decoder.safetensors", "decoder.json"  # of a model with values
NEEDED = (WEIGHTS, CONFIG, VOCABULARY)
_PAIRS = {(LABELS, CALIBRATION): "a classifier", (DECODER_SETTINGS, DECODER): "a value decoder"}
_OPTIONAL = (*(name for pair in _PAIRS for name in pair), CARD)
NAMES = (*NEEDED, *_OPTIONAL, MANIFEST)

MAX_TEXT_BYTES = 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TYPES = {"scmix_version": str, "created": str, "licence": str, "recipe": dict}


def build(files: dict[str, bytes], *, recipe: dict, training_data: list, licence: str) -> bytes:
    """The text of a manifest for these files."""
    from .. import __version__

    manifest = {
        "format": FORMAT,
        "format_version": 2 if DECODER in files else 1,  # what an older scmix can read, it may
        "scmix_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": licence,
        "recipe": recipe,
        "training_data": training_data,
        "files": {
            name: {"sha256": sha256(content), "bytes": len(content)}
            for name, content in sorted(files.items())
        },
    }
    text = to_text(manifest, "recipe and training_data")
    read(text, Path(MANIFEST))  # what cannot be loaded again must not be saved
    return text


def to_text(content: dict, what: str) -> bytes:
    """JSON as text, refusing what JSON does not have."""
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"Found a value in {what} that JSON cannot hold: {error}. Expected dicts with text "
            "keys, lists, text, finite numbers, booleans and None."
        ) from error


def read(raw: bytes, path: Path) -> dict:
    """A manifest with every field that scmix relies on checked."""
    manifest = parse_json(raw, path)
    if manifest.get("format") != FORMAT:
        raise ModelFileError(f'{path} does not say "format": "{FORMAT}"; copy the model again.')
    _check_version(manifest, path)
    for name, kind in _TYPES.items():
        if not isinstance(manifest.get(name), kind):
            raise ModelFileError(f"{path} has no {name} ({kind.__name__}). Copy the model again.")
    if not isinstance(manifest.get("training_data"), list):
        raise ModelFileError(f"{path} has no training_data (list). Copy the model again.")
    _check_files(manifest.get("files"), path)
    return manifest


def read_from(folder: Path) -> dict:
    return read(read_inside(folder, MANIFEST, MAX_TEXT_BYTES), folder / MANIFEST)


def check_size(manifest: dict | None, path: Path, n_bytes: int) -> None:
    """Whether a file is as long as it was when saved; costs nothing, so it comes first."""
    expected = manifest["files"][path.name]["bytes"] if manifest else n_bytes
    if n_bytes != expected:
        raise ModelFileError(
            f"{path} has {n_bytes:,} bytes, expected {expected:,} as in {MANIFEST}: truncated or "
            "changed after saving. Copy the model again."
        )


def check_hash(manifest: dict | None, path: Path, digest: str) -> None:
    """Whether a file is, bit for bit, the one that was saved."""
    expected = manifest["files"][path.name]["sha256"] if manifest else digest
    if digest != expected:
        raise ModelFileError(
            f"{path} has sha256 {digest[:12]}..., expected {expected[:12]}... as in {MANIFEST}: "
            "damaged or changed after saving. Copy the model again."
        )


def _check_version(manifest: dict, path: Path) -> None:
    found = manifest.get("format_version")
    if type(found) is not int or found < 1:
        raise ModelFileError(f"{path} has format_version {str(found)[:40]!r}, expected 1 or more.")
    if found > FORMAT_VERSION:
        raise IncompatibleModelError(
            f"{path} has format_version {found}, this scmix reads up to {FORMAT_VERSION}. "
            f"Install a newer scmix (the model was saved by "
            f"{str(manifest.get('scmix_version'))[:40]})."
        )


def _check_files(files: object, path: Path) -> None:
    if not isinstance(files, dict) or not set(NEEDED) <= files.keys() <= set(NAMES) - {MANIFEST}:
        raise ModelFileError(
            f"{path} lists the files {str(list(files) if isinstance(files, dict) else files)[:200]}"
            f", expected {', '.join(NEEDED)} and at most {', '.join(_OPTIONAL)}. "
            "Copy the model again."
        )
    for (one, other), what in _PAIRS.items():
        if (one in files) != (other in files):
            raise ModelFileError(
                f"{path} lists only one of {one} and {other}, expected both for {what}, "
                "none for an encoder. Copy the model again."
            )
    for name, entry in files.items():
        good = isinstance(entry, dict) and entry.keys() == {"sha256", "bytes"}
        good = good and type(entry["bytes"]) is int and isinstance(entry["sha256"], str)
        if not good or not _SHA256.fullmatch(entry["sha256"]):
            raise ModelFileError(
                f"{path} describes {name} as {str(entry)[:120]}, expected sha256 and bytes. "
                "Copy the model again."
            )
