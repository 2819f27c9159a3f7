"""Expression values as vectors: soft bins that are learned, or fixed bins."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SPREAD = 0.02  # as that of the encoder's embeddings at the start


class SoftBins(nn.Module):
    """Auto-discretisation (Gong et al., 2023): a value is a learned mixture of bins.

    ``h = LeakyReLU(x W1)``, ``a = softmax(h W2 + h)``, and the vector is ``a T``, where ``T`` has
    a row for each bin. Neighbouring values get neighbouring vectors, with a gradient between them.
    Bins start where the scores of bin b are highest near its own centre, as a Gaussian's are.

    Parameters
    ----------
    n_bins
        Bins.
    width
        Length of the vectors.
    most
        The largest possible value.

    Examples
    --------
    >>> SoftBins(10, 4, most=9.2)(torch.tensor([0.0, 1.5])).shape
    torch.Size([2, 4])
    """

    def __init__(self, n_bins: int, width: int, most: float) -> None:
        super().__init__()
        self.rise = nn.Linear(1, n_bins)
        self.mix = nn.Linear(n_bins, n_bins)
        self.table = _in_order(nn.Embedding(n_bins, width))
        self._start(torch.linspace(0, most, n_bins))

    @torch.no_grad()
    def _start(self, centres: Tensor) -> None:
        self.rise.weight.copy_(centres[:, None])
        self.rise.bias.copy_(-centres.square() / 2)
        self.mix.weight.zero_()
        self.mix.bias.zero_()

    def shares(self, values: Tensor) -> Tensor:
        """Share of each bin in each value: ``(T,)`` to ``(T, n_bins)``, rows sum to one."""
        h = F.leaky_relu(self.rise(values[:, None]), 0.1)
        return (self.mix(h) + h).softmax(1)

    def forward(self, values: Tensor) -> Tensor:
        """Vectors of values: ``(T,)`` to ``(T, width)``."""
        return self.shares(values) @ self.table.weight


class FixedBins(nn.Module):
    """Bin 0 for a zero, the others of equal width up to the largest possible value.

    Parameters
    ----------
    n_bins
        Bins, that of zero included.
    width
        Length of the vectors.
    most
        The largest possible value.

    Examples
    --------
    >>> FixedBins(5, 4, most=9.2).bins(torch.tensor([0.0, 0.1, 2.4, 9.3])).tolist()
    [0, 1, 2, 4]
    """

    def __init__(self, n_bins: int, width: int, most: float) -> None:
        super().__init__()
        self.table = _in_order(nn.Embedding(n_bins, width))
        self.most = most

    def bins(self, values: Tensor) -> Tensor:
        """Bin of each value, int64."""
        n_bins = self.table.num_embeddings
        above = 1 + (values * ((n_bins - 1) / self.most)).long()
        return torch.where(values > 0, above.clamp(max=n_bins - 1), 0)

    def forward(self, values: Tensor) -> Tensor:
        """Vectors of values: ``(T,)`` to ``(T, width)``."""
        return self.table(self.bins(values))


@torch.no_grad()
def _in_order(table: nn.Embedding) -> nn.Embedding:
    """Let bins start along one direction, from the lowest to the highest, with a little noise."""
    direction = torch.randn(table.embedding_dim)
    place = torch.linspace(-1, 1, table.num_embeddings)[:, None]
    noise = torch.randn_like(table.weight)
    table.weight.copy_(_SPREAD * (place * direction + 0.3 * noise))
    return table
