"""Word embeddings that start from the co-expression of genes instead of noise."""

import numpy as np
import scipy.sparse as sp
import torch

from ..batches import positions
from ..encoder import Encoder
from .corpus import Corpus
from .sampling import Sampler

_POSITIONS = 0.02  # what a token is counts before where it stands
_N_CELLS = 40_000  # most cells that are looked at
_UNSEEN = 0.1  # length of a gene that was never seen, beside the median of those that were
# What the first position adds, beside the length of a median gene. More would weigh closer to the
# ideal, but leave so little of a gene that the first steps of any training drown it.
_BALLAST = 3.0


@torch.no_grad()
def start_from_coexpression(
    encoder: Encoder,
    corpus: Corpus,
    *,
    by_rank: bool = False,
    max_genes: int | None = None,
    seed: int,
) -> int:
    """Overwrite the embeddings of the genes seen with :func:`coexpression_embeddings`.

    Every row is centred on zero. The median row has the spread of the normal start
    (``initializer_range``); others are longer or shorter, as much as their genes take part in the
    components. Genes never seen keep their random direction and become short. What is added to
    every token alike starts near zero: positions 50 times smaller than usual, the token type at
    zero. The bias of the head starts at the logarithm of each gene's share of all tokens, so that
    the masked language model starts at the entropy of these shares and does not bend the embeddings
    to learn them.

    LayerNorm makes all tokens equally long. With `by_rank` it does not: the last few dimensions are
    ballast, in which no gene has a value, but position r one of size ``log2(1 + r)``, times three
    lengths of a median gene. What LayerNorm leaves of a gene is then about in proportion to its
    length divided by ``log2(1 + r)``, as in discounted cumulative gain (Järvelin & Kekäläinen,
    2002), and the mean over the genes of a cell is the cell's point on the components. The layers
    start blind to the ballast, and the second to last hidden state, which `tl.embed` reads, is
    without it.

    Parameters
    ----------
    encoder
        Changed in place.
    corpus
        Where genes are seen together.
    by_rank
        Whether genes weigh less the lower they rank.
    max_genes
        First genes of a cell that count; None: all.
    seed
        Seed of the cells drawn and of the decomposition.

    Returns
    -------
    Number of genes that were set.
    """
    embeddings = encoder.bert.embeddings
    weight = embeddings.word_embeddings.weight
    width = weight.shape[1]
    own = width - ballast_size(width) if by_rank else width
    genes, vectors = coexpression_embeddings(corpus, own, max_genes=max_genes, seed=seed)
    vectors = vectors - vectors.mean(1, keepdims=True)
    length = np.linalg.norm(vectors, axis=1)
    median = encoder.config.initializer_range * width**0.5
    vectors *= median / np.median(length[length > 0])
    weight[_gene_tokens(corpus)] *= _UNSEEN
    weight[torch.from_numpy(genes), :own] = torch.from_numpy(vectors).to(weight)
    encoder.cls.predictions.bias.copy_(log_shares(corpus, max_genes=max_genes, seed=seed))
    embeddings.token_type_embeddings.weight.zero_()
    embeddings.position_embeddings.weight.mul_(_POSITIONS)
    if by_rank:
        _weigh_by_rank(encoder, _BALLAST * median)
    return len(genes)


def ballast_size(width: int) -> int:
    """Number of dimensions that hold no genes where they weigh by rank."""
    return 2 * max(1, width // 128)


def _weigh_by_rank(encoder: Encoder, length: float) -> None:
    """Write ``length * log2(1 + position)`` into the ballast and keep all else off it."""
    embeddings = encoder.bert.embeddings
    positions = embeddings.position_embeddings.weight
    n = ballast_size(positions.shape[1])
    embeddings.word_embeddings.weight[:, -n:] = 0
    sides = torch.ones(n).to(positions)
    sides[::2] = -1  # the mean over a token, which LayerNorm takes away, stays zero
    rank = torch.arange(len(positions)).clamp(min=1).to(positions)
    positions.zero_()
    positions[:, -n:] = length * torch.log2(1 + rank)[:, None] * sides / n**0.5
    readers = ("query.weight", "key.weight", "value.weight", "intermediate.dense.weight")
    for name, weight in encoder.bert.encoder.named_parameters():
        if name.endswith(readers):
            weight[:, -n:] = 0
        elif name.endswith("output.dense.weight"):
            weight[-n:] = 0
    n_layers = encoder.config.num_hidden_layers
    read = f"encoder.layer.{n_layers - 2}.output" if n_layers > 1 else "embeddings"
    encoder.bert.get_parameter(f"{read}.LayerNorm.weight")[-n:] = 0


def _gene_tokens(corpus: Corpus) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(corpus.vocabulary.species_of_token.any(axis=0)))


def log_shares(
    corpus: Corpus, *, max_genes: int | None = None, n_cells: int = _N_CELLS, seed: int
) -> torch.Tensor:
    """Logarithm of each token's share of the tokens of some cells, one added to every count."""
    tokens = corpus.sequences(_draw(corpus, n_cells, seed), max_genes=max_genes).tokens
    counts = 1 + np.bincount(tokens, minlength=corpus.vocabulary.n_tokens)
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))


def coexpression_embeddings(
    corpus: Corpus,
    n_components: int,
    *,
    max_genes: int | None = None,
    n_cells: int = _N_CELLS,
    min_cells: int = 10,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Loadings of genes on the principal components of their ranks.

    A cell's value for its gene of rank r is ``1 / log2(1 + r)``, divided by the sum over the cell.
    Each data set and species is centred on its own, so that genes do not look alike for being of
    one species or one data set, and weighs by the square root of its number of cells. Genes are
    divided by their root mean square to the power 0.6, so that rare ones count too. The length of a
    gene's vector is what the components explain of its values.

    Parameters
    ----------
    corpus
        The cells.
    n_components
        Length of the vectors.
    max_genes
        First genes of a cell that count; None: all.
    n_cells
        Most cells used, drawn with the balance of training.
    min_cells
        Fewest cells that a gene must be seen in.
    seed
        Seed of the draw and of the decomposition.

    Returns
    -------
    Tokens, shape ``(G,)``, and vectors, shape ``(G, n_components)``, float32, zero-padded when
    there are fewer genes or cells than components.
    """
    rows = _draw(corpus, n_cells, seed)
    ranks = discounted(corpus, rows, max_genes)
    often = np.flatnonzero(ranks.getnnz(axis=0) >= min_cells)
    ranks = ranks[:, often]
    mean_square = np.asarray(ranks.multiply(ranks).mean(0)).ravel()
    scale = (mean_square**-0.3).astype(np.float32)
    group = corpus.dataset[rows].astype(np.int64) * 2 + corpus.species[rows]
    n = max(min(n_components, len(often) - 1, len(rows) - 1), 1)
    _, loadings = principal_components(ranks @ sp.diags(scale), group, n, seed=seed)
    vectors = np.zeros((len(often), n_components), np.float32)
    vectors[:, :n] = loadings * scale[:, None]
    return often, vectors


def discounted(corpus: Corpus, rows: np.ndarray, max_genes: int | None) -> sp.csr_matrix:
    """``1 / log2(1 + rank)`` of each gene of a cell, divided by the sum over the cell."""
    cells = corpus.sequences(rows, max_genes=max_genes)
    weights = (1 / np.log2(2.0 + positions(cells.indptr))).astype(np.float32)
    shape = (len(rows), corpus.vocabulary.n_tokens)
    out = sp.csr_matrix((weights, cells.tokens, cells.indptr), shape=shape)
    total = np.maximum(np.asarray(out.sum(1)).ravel(), 1e-12)
    return sp.csr_matrix(sp.diags((1 / total).astype(np.float32)) @ out)


def principal_components(
    matrix: sp.csr_matrix, group: np.ndarray, n: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of the rows, each group centred on its own, without a dense copy.

    A group of m rows has weight ``sqrt(m)`` in the sum of squares. Randomised subspace iteration
    (Halko, Martinsson & Tropp, 2011).

    Parameters
    ----------
    matrix
        Float32, shape ``(rows, columns)``.
    group
        Code of each row, shape ``(rows,)``.
    n
        Number of components.
    seed
        Of the random start.

    Returns
    -------
    Singular values, shape ``(n,)``, and loadings, shape ``(columns, n)``, largest first.
    """
    _, code, sizes = np.unique(group, return_inverse=True, return_counts=True)
    index, shape = np.arange(len(code)), (len(code), len(sizes))
    weight = (sizes[code] ** -0.25).astype(np.float32)
    member = sp.csr_matrix((weight, (index, code)), shape=shape)
    share = sp.csr_matrix(((1 / sizes[code]).astype(np.float32), (index, code)), shape=shape)
    means = (share.T @ matrix).toarray()
    weighted = sp.csr_matrix(sp.diags(weight) @ matrix)
    transposed = weighted.T.tocsr()
    size = min(n + 16, *matrix.shape)
    basis = np.random.default_rng(seed).standard_normal((matrix.shape[1], size), np.float32)
    for _ in range(3):
        left = np.linalg.qr(weighted @ basis - member @ (means @ basis))[0]
        basis = np.linalg.qr(transposed @ left - means.T @ (member.T @ left))[0]
    _, singular, turn = np.linalg.svd(
        weighted @ basis - member @ (means @ basis), full_matrices=False
    )
    return singular[:n], (basis @ turn.T)[:, :n]


def _draw(corpus: Corpus, n_cells: int, seed: int) -> np.ndarray:
    if len(corpus) <= n_cells:
        return np.arange(len(corpus))
    ones = np.ones(len(corpus), np.int64)
    sampler = Sampler(corpus.species, corpus.stratum, ones, tokens_per_step=n_cells, seed=seed)
    return np.sort(sampler.rows(0))
