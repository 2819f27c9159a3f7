"""The dictionaries of published models: read from their files, and found beside the weights."""

import csv
import os
from collections.abc import Callable
from math import isfinite
from pathlib import Path

from .._errors import IncompatibleModelError, InputError, ModelFileError
from ._files import open_inside, parse_json, read_exactly
from ._unpickle import parse_pickle

Value = str | int | float

_MAX_BYTES = 2**25  # 80,000 genes with numpy scalars take 3 MB
_LFS = b"version https://git-lfs"
_SUFFIXES = (".pkl", ".pickle", ".json", ".csv")
# Where the published repositories keep them, seen from the folder with the weights.
_PLACES = (
    ".",
    "geneformer",
    "geneformer/gene_dictionaries_30m",
    "..",
    "../geneformer",
    "../geneformer/gene_dictionaries_30m",
)


def read_tokens(path: Path) -> dict[str, int]:
    """A token dictionary: gene or special token to its number, each number once."""
    tokens = {name: _token(value, name, path) for name, value in read(path).items()}
    if sorted(tokens.values()) != list(range(len(tokens))):
        raise ModelFileError(
            f"{path} does not number its {len(tokens):,} names from 0 without gaps and repeats; "
            "expected a token dictionary. Copy it again from where it came from."
        )
    unreadable = [name for name in tokens if not _is_name(name)]
    if unreadable:
        raise ModelFileError(f"{path} has a token for {unreadable[0][:80]!r}, expected a name.")
    missing = [name for name in ("<pad>", "<mask>") if name not in tokens]
    if missing:
        raise ModelFileError(
            f"{path} has no {' and no '.join(missing)}; expected a token dictionary of Geneformer."
        )
    return tokens


def read_medians(path: Path) -> dict[str, float]:
    """Gene to the median of its counts above zero."""
    medians = {}
    for name, value in read(path).items():
        if isinstance(value, str) or not isfinite(value) or value <= 0:
            raise ModelFileError(
                f"{path} gives {name[:80]!r} the median {str(value)[:80]!r}; expected a number "
                "above zero. Pass the dictionary of medians that belongs to the model."
            )
        medians[name] = float(value)
    return medians


def read_names(path: Path) -> dict[str, str]:
    """Symbol or other name of a gene to its Ensembl id."""
    names = read(path)
    for name, value in names.items():
        if not isinstance(value, str):
            raise ModelFileError(
                f"{path} gives {name[:80]!r} the value {str(value)[:80]!r}; expected an Ensembl id."
            )
    return {name: str(value) for name, value in names.items() if _is_name(name)}


def read(path: Path) -> dict[str, Value]:
    """A dictionary from a pickle, a JSON object or two columns of a CSV file."""
    if path.suffix not in _SUFFIXES:
        raise InputError(f"Found {path}, expected a dictionary as {', '.join(_SUFFIXES)}.")
    content = read_bytes(path, _MAX_BYTES)
    parse = {".json": parse_json, ".csv": _parse_csv}.get(path.suffix, parse_pickle)
    values = parse(content, path)
    wrong = [name for name, v in values.items() if isinstance(v, bool | list | dict | None)]
    if wrong or not values:
        raise ModelFileError(
            f"{path} holds {f'the entry {wrong[0][:80]!r}' if wrong else 'no entries'}; expected "
            "names with a number or a name each. Copy it again from where it came from."
        )
    return values


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """All bytes of a file that was named by the user; links are followed."""
    path = Path(os.path.realpath(path))
    with open_inside(path.parent, path.name, max_bytes) as file:
        content = read_exactly(file, os.fstat(file.fileno()).st_size, path)
    refuse_pointer(content, path)
    return content


def refuse_pointer(start: bytes, path: Path) -> None:
    """Name what `git clone` leaves in place of large files when git-lfs is not installed."""
    if start.startswith(_LFS):
        raise ModelFileError(
            f"{path} is a pointer of Git LFS, not the file itself. Run `git lfs pull` in the "
            "repository, or download the file."
        )


def find_tokens(folder: Path, n_tokens: int) -> Path:
    """The token dictionary near the weights that has as many entries as the model has tokens."""
    return _find(
        folder,
        "token_dictionary",
        read_tokens,
        lambda tokens: len(tokens) == n_tokens,
        f"a token dictionary of {n_tokens:,} entries, as the model has tokens",
        "token_dictionary",
    )


def find_medians(folder: Path, genes: set[str]) -> Path:
    """The dictionary of medians near the weights that has exactly these genes."""
    return _find(
        folder,
        "gene_median",
        read_medians,
        lambda medians: medians.keys() == genes,
        f"medians of exactly the {len(genes):,} genes of the token dictionary",
        "gene_median",
    )


def find_names(token_dictionary: Path) -> Path | None:
    """The dictionary of gene names beside the token dictionary, if there is exactly one."""
    found = _named(token_dictionary.parent, "gene_name_id")
    return found[0] if len(found) == 1 else None


def _find(
    folder: Path,
    part: str,
    read: Callable[[Path], dict],
    fits: Callable[[dict], bool],
    expected: str,
    argument: str,
) -> Path:
    others: list[str] = []
    for place in _PLACES:  # the nearest wins
        fitting: list[tuple[Path, dict]] = []
        for path in _named(Path(os.path.normpath(folder.absolute() / place)), part):
            try:
                values = read(path)
            except ModelFileError as error:
                others.append(str(error))
                continue
            if not fits(values):
                others.append(f"{path} has {len(values):,} entries")
            elif all(values != known for _, known in fitting):
                fitting.append((path, values))
        if len(fitting) == 1:
            return fitting[0][0]
        if fitting:
            raise InputError(
                f"Found {' and '.join(str(path) for path, _ in fitting)}, which differ and both "
                f"fit. Name the one that belongs to the model with {argument}=."
            )
    found = "; ".join(dict.fromkeys(others)) or f"no file named *{part}*"
    raise IncompatibleModelError(
        f"Found {found} in and beside {folder}; expected {expected}. Name the file with "
        f"{argument}=."
    )


def _named(folder: Path, part: str) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in paths if part in path.name and path.suffix in _SUFFIXES]


def _is_name(name: str) -> bool:
    return name.isprintable() and bool(name.strip())


def _token(value: Value, name: str, path: Path) -> int:
    if not isinstance(value, int):
        raise ModelFileError(
            f"{path} gives {name[:80]!r} the token {str(value)[:80]!r}; expected a whole number."
        )
    return value


def _parse_csv(content: bytes, path: Path) -> dict[str, Value]:
    """Two columns: name and value. The first line may be a header."""
    try:
        rows = [row for row in csv.reader(content.decode("utf-8").splitlines(), strict=True) if row]
    except (ValueError, csv.Error) as error:
        raise ModelFileError(f"{path} is not a CSV file: {error}. Copy it again.") from error
    if any(len(row) != 2 for row in rows):
        raise ModelFileError(f"{path} has lines without exactly two columns: name and value.")
    values = [_number(value) for _, value in rows]
    textual = [isinstance(value, str) for value in values]
    if textual[:1] == [True] and not all(textual):
        rows, values = rows[1:], values[1:]
    names = [name for name, _ in rows]
    if len(set(names)) < len(names):
        raise ModelFileError(f"{path} has a name more than once; expected each once.")
    return dict(zip(names, values, strict=True))


def _number(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
