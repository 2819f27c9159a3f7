"""Multinomial attention masking: which genes are hidden is drawn from learned attention."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_FLOOR = 0.1  # share of the distribution that stays uniform: every gene can be drawn
_REWARD = 0.1  # weight of the reward, and of the entropy, in the masker's loss
_ENTROPY = 0.02
_TINY = 1e-30
_NORM = 1e-5  # published weight of the attention's norm


@dataclass(frozen=True, eq=False)
class Choice:
    """Genes hidden from the encoder, and how likely that was.

    Parameters
    ----------
    hidden
        Bool, shape ``(T,)``.
    chance
        The distribution that genes were drawn from: sums to one over the genes of each cell, zero
        at special tokens; shape ``(T,)``.
    log_chance
        Logarithm of the chance of drawing these genes in the order drawn, shape ``(n,)``, in the
        order of the view.
    n_hidden
        Genes hidden of each cell, shape ``(n,)``.
    entropy
        Entropy of ``chance`` in nats, shape ``(n,)``.
    summary
        What the latents read in each cell, shape ``(n, latent_width)``, in the published form;
        else None.
    """

    hidden: Tensor
    chance: Tensor
    log_chance: Tensor
    n_hidden: Tensor
    entropy: Tensor
    summary: Tensor | None = None


class MultinomialAttention(nn.Module):
    r"""Draws the genes to hide from the attention of learned latents.

    Each latent attends over the genes of a cell; the mean over a random half of the latents, mixed
    with a tenth of the uniform distribution, is the chance :math:`p` of each gene. As many genes as
    the share asks for are drawn without replacement (Gumbel top-k).

    - "adversarial": the masker is rewarded by the loss :math:`r` of the cell (REINFORCE), so it
      learns to hide what is hard to predict. Its own loss is

      .. math:: -0.1\, \mathrm{mean}\left(\frac{r - \bar r}{s_r} \cdot \frac{\log q}{k}\right)
          - 0.02\, \mathrm{mean}\, H(p)

      with the chance :math:`q` of the :math:`k` genes drawn (Plackett-Luce). Keys must not hold
      what is to be predicted; then being hidden says nothing about it.
    - "published": keys are expression values alone, all latents' attention over the *whole* cell,
      hidden genes included, is added to every token, and the draw has no gradient: latents learn
      through what is added. The hidden values leak into the prediction this way. To reproduce.

    Parameters
    ----------
    n_keys
        Width of the keys.
    width
        Width of the encoder.
    share
        Share of each cell's genes to hide.
    mode
        "adversarial" or "published".
    n_latents, latent_width, n_heads
        Size of the attention; heads are summed in the published form.
    """

    def __init__(
        self,
        n_keys: int,
        width: int,
        *,
        share: float,
        mode: str = "adversarial",
        n_latents: int = 32,
        latent_width: int = 64,
        n_heads: int = 8,
    ) -> None:
        super().__init__()
        self.share, self.mode, self.n_heads = share, mode, n_heads
        self.latents = nn.Parameter(torch.randn(n_latents, latent_width))
        self.read = nn.Linear(n_keys, latent_width)
        self.query = nn.Linear(latent_width, latent_width)
        self.key = nn.Linear(latent_width, latent_width)
        self.floor = _FLOOR
        if mode == "published":
            self.floor = 0.0
            self.value = nn.Linear(latent_width, latent_width)
            self.inject = nn.Linear(latent_width, width)

    def forward(self, keys: Tensor, indptr: Sequence[int], genes: Tensor) -> Choice:
        """Draw the genes to hide.

        Parameters
        ----------
        keys
            What each token is judged by, without gradient, float32, shape ``(T, n_keys)``.
        indptr
            Where each cell starts and the last ends.
        genes
            Which tokens may be hidden, bool, shape ``(T,)``.
        """
        # in bfloat16 chances would not sum to one
        with torch.autocast(keys.device.type, enabled=False):
            return self._draw(keys.float(), Segments(indptr, keys.device), genes)

    def loss(self, choice: Choice, losses: Tensor) -> Tensor:
        """The masker's own loss, a scalar.

        Parameters
        ----------
        choice
            What was drawn.
        losses
            Loss of each cell in the order of the view, shape ``(n,)``.
        """
        if choice.summary is not None:
            return _NORM * choice.summary.norm()
        losses = losses.detach()
        advantage = (losses - losses.mean()) / losses.std(correction=0).clamp(min=1e-6)
        surprise = choice.log_chance / choice.n_hidden.clamp(min=1)
        return -_REWARD * (advantage * surprise).mean() - _ENTROPY * choice.entropy.mean()

    def context(self, choice: Choice, indptr: Sequence[int]) -> Tensor | None:
        """What the published form adds to every token, shape ``(T, width)``; else None."""
        if choice.summary is None:
            return None
        return Segments(indptr, choice.summary.device).spread(self.inject(choice.summary))

    def _draw(self, keys: Tensor, cells: "Segments", genes: Tensor) -> Choice:
        read = self.read(keys)
        attention = self._attention(read, cells, genes)
        chance = self._chance(attention, cells, genes)
        n_hidden = self._n_hidden(cells, genes)
        logs = chance.clamp(min=_TINY).log()  # finite slope where the chance is 0
        noise = -torch.empty_like(chance).exponential_().log()  # Gumbel
        draw = cells.order((logs + noise).masked_fill(~genes, -torch.inf))
        taken = cells.position < cells.spread(n_hidden)  # in the order of the draw
        hidden = torch.zeros_like(genes)
        hidden[draw[taken]] = True
        return Choice(
            hidden,
            chance,
            plackett_luce(chance[draw], taken, cells),
            n_hidden,
            cells.sum(-chance * logs),
            self._summary(attention, read, cells) if self.mode == "published" else None,
        )

    def _attention(self, read: Tensor, cells: "Segments", genes: Tensor) -> Tensor:
        """Attention of each latent over the genes of each cell, shape ``(T, n_latents)``."""
        n_heads = self.n_heads if self.mode == "published" else 1
        queries = self.query(self.latents).unflatten(1, (n_heads, -1))
        keys = self.key(read).unflatten(1, (n_heads, -1))
        scores = torch.einsum("thd,mhd->tmh", keys, queries) / math.sqrt(keys.shape[-1])
        scores = scores.masked_fill(~genes[:, None, None], -torch.inf)
        return cells.softmax(scores.flatten(1)).unflatten(1, (-1, n_heads)).mean(2)

    def _chance(self, attention: Tensor, cells: "Segments", genes: Tensor) -> Tensor:
        n_latents = attention.shape[1]
        some = torch.randperm(n_latents, device=attention.device)[: max(n_latents // 2, 1)]
        mean = attention[:, some].mean(1)
        even = genes / cells.spread(cells.sum(genes.to(mean))).clamp(min=1)
        return (1 - self.floor) * mean + self.floor * even

    def _n_hidden(self, cells: "Segments", genes: Tensor) -> Tensor:
        n_genes = cells.sum(genes.float())
        return torch.minimum((self.share * n_genes).round(), (n_genes - 1).clamp(min=0)).long()

    def _summary(self, attention: Tensor, read: Tensor, cells: "Segments") -> Tensor:
        return cells.sum(attention.mean(1, keepdim=True) * self.value(read))


class Segments:
    """Sums, softmax and order within the cells of a packed view.

    Parameters
    ----------
    indptr
        Where each cell starts and the last ends.
    device
        Where the tokens are.

    Examples
    --------
    >>> cells = Segments([0, 2, 3], torch.device("cpu"))
    >>> cells.sum(torch.tensor([1.0, 2.0, 5.0])).tolist()
    [3.0, 5.0]
    """

    def __init__(self, indptr: Sequence[int], device: torch.device) -> None:
        bounds = torch.tensor(indptr, device=device)
        self.n = len(indptr) - 1
        self.cell = torch.arange(self.n, device=device).repeat_interleave(bounds.diff())
        self.starts = bounds[:-1]
        self.position = torch.arange(len(self.cell), device=device) - self.spread(self.starts)

    def spread(self, values: Tensor) -> Tensor:
        """The value of its cell for every token."""
        return values[self.cell]

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the tokens of each cell."""
        return values.new_zeros(self.n, *values.shape[1:]).index_add(0, self.cell, values)

    def softmax(self, scores: Tensor) -> Tensor:
        """Softmax over the tokens of each cell; 0 where the score is minus infinity."""
        index = self.cell[:, None].expand_as(scores)
        top = scores.new_full((self.n, scores.shape[1]), -torch.inf)
        top = top.scatter_reduce(0, index, scores.detach(), "amax")
        raised = (scores - self.spread(top.nan_to_num(neginf=0.0))).exp()
        return raised / self.spread(self.sum(raised)).clamp(min=_TINY)

    def order(self, scores: Tensor) -> Tensor:
        """Indices that sort the tokens of each cell by falling score, cell after cell."""
        falling = scores.argsort(descending=True)
        return falling[self.cell[falling].argsort(stable=True)]


def plackett_luce(chance: Tensor, taken: Tensor, cells: Segments) -> Tensor:
    """Log-probability of drawing some genes of each cell, in this order, without replacement.

    Parameters
    ----------
    chance
        Chance of each gene in the order of the draw, shape ``(T,)``.
    taken
        Which were drawn: the first ones of each cell, bool, shape ``(T,)``.
    cells
        The cells.

    Returns
    -------
    Shape ``(n,)``.

    Examples
    --------
    >>> cells = Segments([0, 3], torch.device("cpu"))
    >>> chance, taken = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([True, True, False])
    >>> round(float(plackett_luce(chance, taken, cells).exp()[0]), 4)  # 0.5 * 0.3 / (1 - 0.5)
    0.3
    """
    exact = chance.double()
    before = exact.cumsum(0) - exact
    gone = (before - cells.spread(before[cells.starts.clamp(max=len(before) - 1)])).clamp(
        min=0, max=1 - 1e-6
    )
    logs = exact.clamp(min=_TINY).log() - torch.log1p(-gone)
    return cells.sum(logs.masked_fill(~taken, 0)).float()
