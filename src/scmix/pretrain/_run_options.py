"""How often a run records, validates and saves; what of it `transformers.Trainer` is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from .._errors import InputError
from .._training import arguments
from ..settings import settings
from .recipes import Recipe

# With these, and the first of them, every parameter gets a gradient.
_USE_ALL = frozenset({"mlm", "simcse", "subset_contrast", "xspecies"})


@dataclass(frozen=True)
class RunOptions:
    """Settings of a run that do not change the model it ends with.

    Parameters
    ----------
    log_every
        Steps between records of the history.
    validate_every
        Steps between validations; None: as checkpoints.
    checkpoint_every
        Steps between checkpoints.
    keep
        Checkpoints kept.
    """

    log_every: int = 10
    validate_every: int | None = None
    checkpoint_every: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("validate_every", "checkpoint_every"):
            self._check_multiple(name, getattr(self, name))
        if self.keep < 2:
            raise InputError(f"Found keep={self.keep}, expected at least 2.")

    def _check_multiple(self, name: str, value: int | None) -> None:
        if self.log_every < 1 or (value is not None and (value < 1 or value % self.log_every)):
            raise InputError(
                f"Found {name}={value} and log_every={self.log_every}; the first must be a "
                "multiple of the second, and both at least 1."
            )

    def to_dict(self) -> dict[str, int]:
        """What a run that resumes must have in common with the one before."""
        validate = {} if self.validate_every is None else {"validate_every": self.validate_every}
        return {
            "log_every": self.log_every,
            "checkpoint_every": self.checkpoint_every,
            **validate,
        }

    def arguments(self, folder: Path, recipe: Recipe, *, validate: bool) -> TrainingArguments:
        """Arguments of `transformers.Trainer`; making them joins the other processes."""
        return arguments(
            folder,
            **_optimisation(recipe),
            use_cpu=settings.device == "cpu" or not torch.cuda.is_available(),
            seed=recipe.seed,
            logging_steps=self.log_every,
            save_steps=self.checkpoint_every,
            save_total_limit=self.keep,
            eval_strategy="steps" if validate else "no",
            eval_steps=self.validate_every or self.checkpoint_every,
        )


def _optimisation(recipe: Recipe) -> dict[str, Any]:
    return {
        "max_steps": recipe.steps,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(recipe.warmup * recipe.steps),
        "weight_decay": recipe.weight_decay,
        "adam_beta2": recipe.adam_beta2,
        "max_grad_norm": recipe.max_grad_norm,
        "gradient_accumulation_steps": recipe.accumulation,
        "optim": "adamw_torch_fused",
        "bf16": recipe.precision == "bf16",
        # looking for parameters without a gradient costs time in every step
        "ddp_find_unused_parameters": not (
            "mlm" in recipe.objectives and _USE_ALL.issuperset(recipe.objectives)
        ),
    }
