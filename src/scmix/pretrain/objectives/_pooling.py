"""One vector for each cell of a view."""

from typing import Any

from torch import Tensor

from ...encoder import Encoder


def pooled(encoder: Encoder, hidden: Tensor, view: dict[str, Any], pool: str) -> Tensor:
    """One vector for each cell, in the order of the batch.

    Parameters
    ----------
    encoder
        The encoder, for its pooler.
    hidden
        Hidden states of the view, shape ``(T, H)``.
    view
        The view.
    pool
        "mean" over genes, special and masked tokens left out; "first": the pooler's output for the
        top-ranked gene; "cls": the first token of each cell.

    Returns
    -------
    Shape ``(n, H)``, float32.
    """
    if pool == "first":
        return encoder.pooler(hidden[view["first"][view["place"]]]).float()
    if pool == "cls":
        starts = view["place"].new_tensor(view["indptr"][:-1])
        return hidden[starts[view["place"]]].float()
    return encoder.pool(hidden, view["indptr"], view["keep"])[view["place"]]
