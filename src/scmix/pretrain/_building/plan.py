"""What is to be built, and where its intermediate results lie."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..._rank_kernels import MAX_RANK
from ...genes import Vocabulary
from .._store import FORMAT, MANIFEST, VOCABULARY
from .quality import Quality
from .source import Source, stamp

_PLAN = "plan.json"


@dataclass(frozen=True, eq=False)
class Plan:
    """Files, vocabulary and options of a corpus, and the folder in which it is built.

    A part (one file's cells) is found under a name that depends on the file, what was said about
    it and the options that change it. So an interrupted build goes on, and one that failed at a
    file goes on when that file or what was said about it has changed.

    Parameters
    ----------
    target
        Where the corpus will be.
    sources, stamps
        The files, with size and time of the last change.
    vocabulary
        Gives tokens and medians.
    quality
        Which cells are kept.
    n_genes
        Most genes kept of a cell; None: all.
    values
        Whether counts are stored.
    medians
        "vocabulary" or "corpus": whose medians genes are ranked by.
    shard_tokens
        Tokens in a shard; the last cell may go beyond.
    n_threads
        Threads of one process.
    overwrite
        Whether another corpus may be replaced.
    """

    target: Path
    sources: tuple[Source, ...]
    stamps: tuple[dict[str, int], ...]
    vocabulary: Vocabulary
    quality: Quality
    n_genes: int | None
    values: bool
    medians: str
    shard_tokens: int
    n_threads: int
    overwrite: bool

    @property
    def folder(self) -> Path:
        """Intermediate results, beside the corpus to be; gone when it is complete."""
        return self.target.with_name(f".{self.target.name}.building")

    @property
    def parts(self) -> list[Path]:
        """Where the cells of each file go."""
        return [self.folder / "parts" / name for name in self._part_names]

    @property
    def room(self) -> Path:
        """Where the results that depend on all files lie."""
        return self.folder / self.sha256[:16]

    @property
    def corpus(self) -> Path:
        """The corpus while it is not complete."""
        return self.room / "corpus"

    @property
    def locks(self) -> Path:
        """Where processes say what they work on."""
        return self.folder / "locks"

    @property
    def ranks_again(self) -> bool:
        """Whether parts hold whole cells with counts, to be ranked when medians are known."""
        return self.medians == "corpus"

    @property
    def part_genes(self) -> int:
        """Most genes of a cell in a part."""
        return MAX_RANK if self.n_genes is None or self.ranks_again else self.n_genes

    @property
    def part_values(self) -> bool:
        """Whether parts hold counts."""
        return self.values or self.ranks_again

    @cached_property
    def token_dtype(self) -> np.dtype:
        """The smallest type that holds every token."""
        return token_dtype(self.vocabulary.n_tokens)

    @cached_property
    def sha256(self) -> str:
        """Hash of all that the corpus depends on."""
        options = {"n_genes": self.n_genes, "values": self.values, "medians": self.medians}
        return _sha256([self._part_names, options, self.shard_tokens])

    @cached_property
    def _part_names(self) -> list[str]:
        common = {
            "format": FORMAT,
            "scmix": version("scmix"),
            "vocabulary": self.vocabulary.sha256,
            "quality": asdict(self.quality),
            "n_genes": self.part_genes,
            "values": self.part_values,
        }
        settings = [source.settings() for source in self.sources]
        return [
            _sha256([common, said, seen])[:24]
            for said, seen in zip(settings, self.stamps, strict=True)
        ]

    def prepare(self) -> None:
        """Make the folders, and write down the plan for other processes."""
        for folder in (self.folder / "parts", self.locks, self.corpus / "shards"):
            folder.mkdir(parents=True, exist_ok=True)
        if not (self.room / VOCABULARY).exists():
            partial = self.room / f"{VOCABULARY}.{os.getpid()}"
            self.vocabulary.write(partial)
            partial.replace(self.room / VOCABULARY)
        said = {
            "target": str(self.target.resolve()),
            "sources": [source.settings() for source in self.sources],
            "stamps": self.stamps,
            "quality": asdict(self.quality),
            "n_genes": self.n_genes,
            "values": self.values,
            "medians": self.medians,
            "shard_tokens": self.shard_tokens,
            "n_threads": self.n_threads,
            "overwrite": self.overwrite,
        }
        self._write(_PLAN, said)

    def is_built(self) -> bool:
        """Whether the corpus is in its place."""
        try:
            manifest = json.loads((self.target / MANIFEST).read_text("utf-8"))
            return bool(manifest["plan"] == self.sha256)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def clean(self) -> None:
        """Remove what a process left that was killed when the corpus was already in its place."""
        if self.room.exists() and not self.corpus.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        for left in self.target.parent.glob(f"{self.folder.name}.*"):
            shutil.rmtree(left, ignore_errors=True)

    def note(self, name: str, about: dict[str, Any]) -> None:
        """Write down what the manifest will say of a result, before that is in its place."""
        self._write(f"{name}.json", about)

    def noted(self, name: str) -> dict[str, Any]:
        """What was written down."""
        return json.loads((self.room / f"{name}.json").read_text("utf-8"))

    def _write(self, name: str, said: dict[str, Any]) -> None:
        partial = self.room / f"{name}.{os.getpid()}"
        partial.write_text(json.dumps(said), "utf-8")
        partial.replace(self.room / name)

    @classmethod
    def read(cls, room: Path) -> Self:
        """The plan that another process wrote down."""
        said: dict[str, Any] = json.loads((room / _PLAN).read_text("utf-8"))
        return cls(
            target=Path(said.pop("target")),
            sources=tuple(Source(**source) for source in said.pop("sources")),
            stamps=tuple(said.pop("stamps")),
            vocabulary=Vocabulary.read(room / VOCABULARY),
            quality=Quality(**said.pop("quality")),
            **said,
        )


def is_free(target: Path) -> bool:
    """Whether there is nothing, or an empty folder."""
    return not target.exists() or (target.is_dir() and not any(target.iterdir()))


def stamps_of(sources: Sequence[Source]) -> tuple[dict[str, int], ...]:
    """Size and time of the last change of each file."""
    return tuple(stamp(Path(source.path)) for source in sources)


def token_dtype(n_tokens: int) -> np.dtype:
    """The smallest type that holds every token."""
    return np.dtype(np.uint16 if n_tokens <= 2**16 else np.uint32)


def _sha256(said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
