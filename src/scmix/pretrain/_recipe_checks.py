"""Which settings of a recipe go together, checked before any work."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from .._errors import InputError

if TYPE_CHECKING:
    from ._recipe import Recipe


@dataclass(frozen=True)
class Kind:
    """What an objective reads."""

    views: tuple[str, ...]
    needs: frozenset[str] = frozenset()


_VALUES = frozenset({"values"})
OBJECTIVES = {
    "mlm": Kind(("masked",)),
    "simcse": Kind(("masked", "again")),
    "subset_contrast": Kind(("masked", "subset")),
    "xspecies": Kind(("full", "swapped")),
    "masked_values": Kind(("valued",), _VALUES),
    "wced": Kind(("part",), _VALUES),
    "poisson": Kind(("part",), _VALUES),
    "value_autoencoder": Kind(("visible",), _VALUES),
    "restore": Kind(("panel",), _VALUES),
}
_CHOICES = {
    "vocabulary": ("shared", "separate"),
    "value_input": ("none", "mlp"),
    "masker": ("mlm", "uniform", "mam"),
    "mam_mode": ("adversarial", "published"),
    "part_masker": ("subset", "keep_k", "uniform", "nonzero_zero"),
    "simcse_pool": ("mean", "first"),
    "simcse_negatives": ("all", "species", "dataset"),
    "subset_contrast_negatives": ("all", "species", "dataset"),
    "wced_pool": ("mean", "cls"),
    "wced_sets": ("all", "split"),
    "poisson_pool": ("mean", "cls"),
    "restore_draw": ("measured", "detected"),
    "precision": ("bf16", "fp32"),
    "init": ("random", "coexpression", "coexpression_by_rank"),
}


def check(recipe: "Recipe") -> None:
    """Refuse settings that are unknown, out of range, or do not go together."""
    _check_choices(recipe)
    _check_objectives(recipe)
    _check_ranges(recipe)
    _check_pairs(recipe)


def views_of(objectives: Iterable[str]) -> tuple[str, ...]:
    """Views that some objectives read, each once."""
    return tuple(dict.fromkeys(view for name in objectives for view in OBJECTIVES[name].views))


def _check_choices(recipe: "Recipe") -> None:
    for name, choices in _CHOICES.items():
        if getattr(recipe, name) not in choices:
            raise InputError(
                f"Found {name}={getattr(recipe, name)!r}, expected one of {', '.join(choices)}."
            )


def _check_objectives(recipe: "Recipe") -> None:
    unknown = sorted(set(recipe.objectives) - set(OBJECTIVES))
    close = [hit for name in unknown for hit in get_close_matches(name, OBJECTIVES, n=1)]
    if unknown or not recipe.objectives:
        hint = f" Did you mean {' and '.join(close)}?" if close else ""
        raise InputError(
            f"Found objectives {sorted(recipe.objectives)}, expected some of "
            f"{', '.join(OBJECTIVES)}.{hint}"
        )
    wrong = {name: weight for name, weight in recipe.objectives.items() if not 0 < weight < 1e9}
    if wrong:
        raise InputError(
            f"Found objective weights {wrong}, expected numbers above 0. "
            "Leave out an objective that should not count."
        )


def _check_ranges(recipe: "Recipe") -> None:
    low, high = recipe.subset_share
    ranges = {
        "max_length": 4 <= recipe.max_length <= recipe.tokens_per_step,
        "length_multiple": recipe.length_multiple >= 1,
        "steps": recipe.steps >= 1,
        "accumulation": recipe.accumulation >= 1,
        "warmup": 0 <= recipe.warmup < 1,
        "datasets_per_step": recipe.datasets_per_step >= 0,
        "mask_share": 0 < recipe.mask_share < 1,
        "subset_share": 0 < low <= high <= 1,
        "subset_swapped": 0 <= recipe.subset_swapped <= 1,
        "mam_latents": recipe.mam_latents >= 2,
        "mam_width": recipe.mam_width >= 8 and recipe.mam_width % 8 == 0,
        "keep_k": recipe.keep_k >= 1,
        "hide_nonzero": 0 < recipe.hide_nonzero < 1,
        "hide_zero": 0 <= recipe.hide_zero < 1,
        "species_token_dropout": 0 <= recipe.species_token_dropout <= 1,
        "learning_rate": recipe.learning_rate > 0,
        "value_total": recipe.value_total > 0,
        "simcse_temperature": recipe.simcse_temperature > 0,
        "subset_contrast_temperature": recipe.subset_contrast_temperature > 0,
        "xspecies_temperature": recipe.xspecies_temperature > 0,
        "poisson_layers": recipe.poisson_layers >= 0,
        "value_decoder_layers": recipe.value_decoder_layers >= 1,
        "value_bins": recipe.value_bins >= 2,
        "value_dropout": 0 <= recipe.value_dropout < 1,
        "value_autoencoder_zero_weight": recipe.value_autoencoder_zero_weight >= 0,
        "value_autoencoder_targets": recipe.value_autoencoder_targets >= 1,
        "value_autoencoder_thinning": 0 <= recipe.value_autoencoder_thinning <= 1,
        "restore_genes": 2 <= recipe.restore_genes[0] <= recipe.restore_genes[1],
        "restore_share": 0 < recipe.restore_share[0] <= recipe.restore_share[1] < 1,
        "seed": recipe.seed >= 0,
    }
    for name, fits in ranges.items():
        if not fits:
            raise InputError(
                f"Found {name}={getattr(recipe, name)!r}, which is out of range "
                "(max_length must be at least 4 and at most tokens_per_step)."
            )


def _check_pairs(recipe: "Recipe") -> None:
    _check_part(recipe)
    readers = {"mlm", "masked_values"} & set(recipe.objectives)
    if recipe.masker == "mam" and len(readers) != 1:
        raise InputError(
            f"Found masker='mam' with objectives {sorted(recipe.objectives)}; a learned masker is "
            "rewarded by the loss of one: name either mlm or masked_values."
        )
    if "masked_values" in readers and recipe.masker == "mlm":
        raise InputError(
            "Found masked_values with masker='mlm', which hides genes, not values. "
            "Pass masker='uniform' or masker='mam'."
        )
    if "masked_values" in readers and recipe.positions:
        raise InputError(
            "Found masked_values with positions=True: a gene's rank tells its value. "
            "Pass positions=False."
        )
    if recipe.init == "coexpression_by_rank" and not recipe.positions:
        raise InputError(
            "Found init='coexpression_by_rank' with positions=False: positions are what genes are "
            "weighed by. Pass init='coexpression'."
        )


def _check_part(recipe: "Recipe") -> None:
    n_special = 3  # at most: species or <cls>, <eos>, and one to spare
    part_masker = recipe.part_masker if "part" in views_of(recipe.objectives) else None
    if part_masker == "keep_k" and recipe.keep_k + n_special > recipe.max_length:
        raise InputError(
            f"Found keep_k={recipe.keep_k} with max_length={recipe.max_length}; so many genes do "
            f"not fit. Pass max_length={recipe.keep_k + n_special} or a smaller keep_k."
        )
    if part_masker == "subset" and recipe.subset_share == (1.0, 1.0):
        raise InputError(
            "Found subset_share=(1.0, 1.0): the view 'part' would hide nothing. "
            "Pass for example subset_share=(0.5, 0.5)."
        )
