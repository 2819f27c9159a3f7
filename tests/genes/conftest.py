"""The bundled vocabulary, and names of its genes."""

import warnings
from collections.abc import Callable, Iterator

import pytest

from scmix.genes import Vocabulary


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.bundled()


@pytest.fixture
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="session")
def symbols() -> Callable[..., list[str]]:
    """`symbols(species, n, seed)`: protein-coding genes, spelled as the species spells them."""

    def draw(species: str, n: int = 400, seed: int = 0) -> list[str]:
        genes = Vocabulary.bundled().genes
        genes = genes[(genes.species == species) & (genes.biotype == "protein_coding")]
        return genes[genes.symbol != ""].sample(n, random_state=seed).symbol.tolist()

    return draw


@pytest.fixture(scope="session")
def ids() -> Callable[..., list[str]]:
    """`ids(species, n, seed)`: Ensembl ids."""

    def draw(species: str, n: int = 400, seed: int = 0) -> list[str]:
        genes = Vocabulary.bundled().genes
        return genes[genes.species == species].sample(n, random_state=seed).ensembl_id.tolist()

    return draw
