"""What the two objectives with a value decoder share: their view, their input, their start."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..._config import Config
from ...decoders import Settings, ValueDecoder
from ...encoder import Encoder
from ..corpus import Corpus
from ..gene_values import value_moments

_LEAST_SCALE = 0.25  # of a gene that is nearly always zero, a single count is 20 deviations


class ValueDecoding(nn.Module):
    """A decoder that is asked for genes of a view.

    Parameters
    ----------
    settings
        Sizes of the decoder.
    config
        Of the encoder.
    view
        Name of the view.
    dropout
        Chance that a cell goes without its values, so that the encoder can do without.
    """

    needs: frozenset[str] = frozenset({"values"})

    def __init__(self, settings: Settings, config: Config, *, view: str, dropout: float) -> None:
        super().__init__()
        self.views = (view,)
        self.dropout = dropout
        self.decoder = ValueDecoder(settings, config)

    @torch.no_grad()
    def start(self, corpus: Corpus) -> None:
        """Let the decoder begin with the mean of every gene in the corpus."""
        mean, scale = value_moments(corpus, self.decoder.settings.total)
        self.decoder.mean.copy_(torch.from_numpy(mean))
        self.decoder.scale.copy_(torch.from_numpy(scale).clamp(min=_LEAST_SCALE))

    def added(self, view: Mapping[str, Any]) -> Tensor:
        """What is added to the embeddings of a view's tokens: their values, and the depth."""
        lengths = torch.as_tensor(view["indptr"]).diff().to(view["place"].device)
        order = view["place"].argsort()  # cell of the batch at each row of the view
        known = view["keep"]
        if self.training and self.dropout:
            without = torch.rand(len(order), device=known.device) < self.dropout
            known = known & ~without.repeat_interleave(lengths)
        depth = view.get("depth")  # a whole cell, as it is read to judge the encoder, has none
        depth = None if depth is None else depth[order].repeat_interleave(lengths, 0)
        return self.decoder.added(view["values"], known, depth)

    def predict(
        self, encoder: Encoder, hidden: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions of the hidden genes, their true values, and the cell of each."""
        view = batch["views"][self.views[0]]
        memories, real = self.decoder.remember(hidden[self.views[0]], view["indptr"])
        place, asked = view["place"], view["hidden"]
        found = self.decoder(
            encoder.bert.embeddings.word_embeddings,
            [memory[place] for memory in memories],
            real[place],
            asked["tokens"],
            asked["indptr"],
            batch["species"],
        )
        n_asked = torch.as_tensor(asked["indptr"]).diff()
        cell = torch.arange(len(n_asked)).repeat_interleave(n_asked).to(found.device)
        return found, asked["values"], cell


def mean_by_cell(errors: Tensor, cell: Tensor, n_cells: int) -> Tensor:
    """Mean of each cell's errors, without gradient; zero for a cell without any."""
    sums = errors.new_zeros(n_cells).index_add(0, cell, errors.detach())
    return sums / cell.bincount(minlength=n_cells).clamp(min=1)


def mean_where(errors: Tensor, where: Tensor) -> Tensor:
    """Mean of some errors, without gradient; zero where there are none."""
    return (errors.detach() * where).sum() / where.sum().clamp(min=1)
