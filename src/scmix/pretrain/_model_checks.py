"""What a recipe needs of the vocabulary."""

from .._errors import InputError
from ..genes import Vocabulary
from ._recipe import Recipe


def check_vocabulary(vocabulary: Vocabulary, recipe: Recipe) -> None:
    """Refuse to pool a token that cells of this vocabulary do not start with."""
    for name in recipe.objectives:
        pool = getattr(recipe, f"{name}_pool", "")
        if pool == "cls" and "<cls>" not in vocabulary.special:
            raise InputError(
                f'Found {name}_pool="cls", but this vocabulary (mode {vocabulary.mode!r}) has no '
                f'<cls> token. Pass {name}_pool="mean".'
            )
