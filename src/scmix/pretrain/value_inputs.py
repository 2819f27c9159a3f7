"""How much of a gene there is, as a vector that is added to the gene's embedding."""

from torch import Tensor, nn

from ._recipe import Recipe


class ValueNetwork(nn.Module):
    """A small network from one number to a vector (BMFM-RNA's first version; scGPT).

    Parameters
    ----------
    width
        Width of the encoder.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, values: Tensor) -> Tensor:
        """Vectors of values: ``(T,)`` to ``(T, width)``."""
        return self.layers(values[:, None])


def make_value_input(recipe: Recipe, width: int) -> nn.Module | None:
    """Build what the recipe says the encoder reads of values; None: nothing."""
    return ValueNetwork(width) if recipe.value_input == "mlp" else None
