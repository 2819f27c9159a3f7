"""Word embeddings that start from the co-occurrence of genes instead of noise."""

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.extmath import randomized_svd

from ..encoder import Encoder
from .corpus import Corpus
from .sampling import Sampler

_BLOCK = 512  # genes whose co-occurrences exist at a time
_MIN_PAIRS = 3  # fewer cells in common are chance, and for rare genes a high score


@torch.no_grad()
def start_from_coexpression(encoder: Encoder, corpus: Corpus, *, seed: int) -> int:
    """Overwrite the embeddings of the genes seen with :func:`coexpression_embeddings`.

    Every row is centred on zero and gets the spread of the normal start
    (``initializer_range``), so that the layers above see numbers of the size they are made for.
    Position embeddings start ten times smaller: what a token is counts before where it stands.

    Parameters
    ----------
    encoder
        Changed in place.
    corpus
        Where genes are seen together.
    seed
        Seed of the cells drawn and of the decomposition.

    Returns
    -------
    Number of genes that were set; the others keep their random start.
    """
    weight = encoder.bert.embeddings.word_embeddings.weight
    genes, vectors = coexpression_embeddings(corpus, weight.shape[1], seed=seed)
    vectors = vectors - vectors.mean(1, keepdims=True)
    spread = vectors.std(1, keepdims=True)
    seen = spread[:, 0] > 0
    scaled = encoder.config.initializer_range * vectors[seen] / spread[seen]
    weight[torch.from_numpy(genes[seen])] = torch.from_numpy(scaled).to(weight)
    encoder.bert.embeddings.position_embeddings.weight.mul_(0.1)
    return int(seen.sum())


def coexpression_embeddings(
    corpus: Corpus,
    n_components: int,
    *,
    n_cells: int = 20_000,
    n_top: int = 128,
    min_cells: int = 5,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of genes from a truncated SVD of their positive pointwise mutual information.

    Two genes occur together in a cell when both are among its ``n_top`` first tokens. What is
    expected by chance is counted within each data set and species and then summed, so that genes
    do not look alike for being of one species or one data set.

    Parameters
    ----------
    corpus
        The cells.
    n_components
        Length of the vectors.
    n_cells
        Most cells used, drawn with the balance of training.
    n_top
        First tokens of a cell that count.
    min_cells
        Fewest cells that a gene must be seen in.
    seed
        Seed of the draw and of the decomposition.

    Returns
    -------
    Tokens, shape ``(G,)``, and vectors, shape ``(G, n_components)``, float32, zero-padded when
    there are fewer genes than components.
    """
    rows = _draw(corpus, n_cells, seed)
    seen, group = _seen(corpus, rows, n_top)
    often = np.flatnonzero(np.asarray(seen.sum(0)).ravel() >= min_cells)
    seen = seen[:, often]
    information = positive_information(seen, group)
    rank = min(n_components, max(len(often) - 1, 1))
    # without the singular values: rare programs count as much as common ones, which told cell
    # types apart better in training data sets than their square root, and that better than they
    u, _, _ = randomized_svd(information, rank, n_iter=3, random_state=seed)
    vectors = np.zeros((len(often), n_components), np.float32)
    vectors[:, :rank] = u
    return often, vectors


def positive_information(seen: sp.csr_matrix, group: np.ndarray) -> sp.csr_matrix:
    """Positive pointwise mutual information of columns, with chance counted within groups.

    Parameters
    ----------
    seen
        1 where a cell shows a gene, shape ``(n, G)``, float32.
    group
        Group of each cell, shape ``(n,)``.

    Returns
    -------
    ``max(0, log(observed / expected))`` of pairs seen in at least 3 cells, shape ``(G, G)``,
    with a zero diagonal.
    """
    _, code, sizes = np.unique(group, return_inverse=True, return_counts=True)
    ones = np.ones(len(code), np.float32)
    membership = sp.csr_matrix((ones, (code, np.arange(len(code)))))
    # sum over groups of n_i n_j / n, as a product of thin matrices
    by_group = (membership @ seen).toarray() / np.sqrt(sizes, dtype=np.float32)[:, None]
    transposed = seen.T.tocsr()
    blocks = []
    for start in range(0, seen.shape[1], _BLOCK):
        observed = (transposed[start : start + _BLOCK] @ seen).tocoo()
        expected = by_group[:, start : start + _BLOCK].T @ by_group
        often = (observed.data >= _MIN_PAIRS) & (start + observed.row != observed.col)
        i, j = observed.row[often], observed.col[often]
        score = np.log(observed.data[often] / expected[i, j])
        keep = score > 0
        blocks.append(sp.csr_matrix((score[keep], (i[keep], j[keep])), shape=observed.shape))
    return sp.vstack(blocks, format="csr")


def _draw(corpus: Corpus, n_cells: int, seed: int) -> np.ndarray:
    if len(corpus) <= n_cells:
        return np.arange(len(corpus))
    ones = np.ones(len(corpus), np.int64)
    sampler = Sampler(corpus.species, corpus.dataset, ones, tokens_per_step=n_cells, seed=seed)
    return np.sort(sampler.rows(0))


def _seen(corpus: Corpus, rows: np.ndarray, n_top: int) -> tuple[sp.csr_matrix, np.ndarray]:
    cells = corpus.sequences(rows, max_genes=n_top)
    shape = (len(rows), corpus.vocabulary.n_tokens)
    ones = np.ones(cells.tokens.size, np.float32)
    seen = sp.csr_matrix((ones, cells.tokens, cells.indptr), shape=shape)
    group = corpus.dataset[rows].astype(np.int64) * 2 + corpus.species[rows]
    return seen, group
