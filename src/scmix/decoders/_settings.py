"""Sizes of a value decoder: what decoder.json holds."""

from dataclasses import asdict, dataclass
from typing import Any

from .._errors import InputError

KINDS = ("value_autoencoder", "restore")
_LARGEST = {
    "width": 16_384,
    "num_layers": 256,
    "num_heads": 1_024,
    "intermediate_size": 131_072,
    "n_bins": 100_000,
}


@dataclass(frozen=True)
class Settings:
    """What a value decoder is made of.

    Parameters
    ----------
    kind
        "value_autoencoder": values are embedded by soft bins that are learned, and the decoder's
        layers go on working on the visible genes (xTrimoGene). "restore": values are embedded by
        fixed bins, zeros too, and the decoder only asks the encoder's output (GexBERT).
    width, num_layers, num_heads, intermediate_size
        Sizes of the decoder's layers.
    n_bins
        Bins of a value.
    total
        Counts are scaled to this total before the logarithm.
    reads_depth
        Whether the depth of the cell as it is shown and as it is wanted are inputs (training with
        thinned counts).

    Examples
    --------
    >>> Settings("restore", width=32).num_layers
    2
    """

    kind: str
    width: int = 64
    num_layers: int = 2
    num_heads: int = 4
    intermediate_size: int = 128
    n_bins: int = 100
    total: float = 10_000.0
    reads_depth: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"Found kind={self.kind!r}, expected one of {', '.join(KINDS)}.")
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= largest:
                raise InputError(
                    f"Found {name}={value!r}, expected a number from 1 to {largest:,}."
                )
        if self.width % self.num_heads:
            raise InputError(f"Found width={self.width}, expected a multiple of {self.num_heads}.")
        if self.n_bins < 2:
            raise InputError("Found n_bins=1, expected at least 2.")
        if type(self.total) is not float or not 1 <= self.total <= 1e9:
            raise InputError(f"Found total={self.total!r}, expected a fraction from 1.0 to 1e9.")
        if type(self.reads_depth) is not bool:
            raise InputError(f"Found reads_depth={self.reads_depth!r}, expected true or false.")

    def to_dict(self) -> dict[str, Any]:
        """Every setting, as JSON can hold it."""
        return asdict(self)


def tensor_shapes(
    settings: Settings, *, hidden_size: int, vocab_size: int
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a decoder with these settings."""
    width, bins = settings.width, settings.n_bins
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (2, vocab_size),
        "scale": (2, vocab_size),
        "anchor": (width,),
        "values.table.weight": (bins, hidden_size),
        **_dense("memory", width, hidden_size),
        **_dense("query", width, hidden_size),
        **_norm("norm", width),
        **_dense("head", 1, width),
    }
    if settings.kind == "value_autoencoder":
        shapes |= _dense("values.rise", bins, 1) | _dense("values.mix", bins, bins)
    if settings.reads_depth:
        shapes |= _dense("depth", hidden_size, 2)
    for index in range(settings.num_layers):
        shapes |= _layer(f"layers.{index}", settings)
    return shapes


def _layer(name: str, settings: Settings) -> dict[str, tuple[int, ...]]:
    width, inner = settings.width, settings.intermediate_size
    parts = [_dense(f"{name}.{part}", width, width) for part in ("query", "key", "value", "output")]
    shapes = {key: shape for part in parts for key, shape in part.items()}
    return {
        **shapes,
        **_norm(f"{name}.before_attention", width),
        **_norm(f"{name}.before_dense", width),
        **_dense(f"{name}.wide", inner, width),
        **_dense(f"{name}.narrow", width, inner),
    }


def _dense(name: str, n_out: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
