"""The part of `transformers.Trainer` that is ours: batches, seeds, checks and records."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.utils.data import DataLoader

from .._history import History
from .._training import Watch, as_it_is, seed_of
from ._distributed import mean_over_processes, n_processes, not_gathering, wait_for_all
from ._sharding import gathered, whole
from ._validation import Validation
from .model import Pretraining
from .recipes import Recipe
from .stream import Stream


class Trainer(transformers.Trainer):
    """Trains on a :class:`Stream`, whose batch at a step depends on the seed and the step only.

    The random numbers of dropout are seeded anew for every batch. Therefore a resumed run needs
    to replay nothing, and equals one that was never interrupted.
    """

    def __init__(
        self,
        model: Pretraining,
        args: transformers.TrainingArguments,
        stream: Stream,
        recipe: Recipe,
        history: History | None,
        validation: Validation | None,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=stream,
            eval_dataset=stream if validation else None,
        )
        self.add_callback(_Watch(self, "Pretraining"))
        self.recipe, self.stream, self.validation = recipe, stream, validation
        self.history = history
        self._window = _Window()
        self.remove_callback(transformers.PrinterCallback)  # it prints

    def get_train_dataloader(self) -> DataLoader:
        """Whole batches as they come."""
        return DataLoader(
            self.stream,
            batch_size=None,
            collate_fn=as_it_is,
            num_workers=self.args.dataloader_num_workers,
        )

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of a batch; one that is not finite ends the training."""
        torch.manual_seed(seed_of(self.recipe.seed, inputs["number"], 2))
        out = model(inputs)
        if not torch.isfinite(out["loss"]):
            values = {name: float(value) for name, value in out["metrics"].items()}
            raise FloatingPointError(self._stopped(f"loss ({values})", inputs["rows"]))
        self._window.add(out["metrics"], inputs)
        return (out["loss"], out) if return_outputs else out["loss"]

    def check_gradients(self, model: torch.nn.Module) -> None:
        """End the training before a gradient that is not finite reaches the weights."""
        norms = torch._foreach_norm([p.grad for p in model.parameters() if p.grad is not None])
        if not torch.isfinite(torch.stack(norms)).all():
            raise FloatingPointError(self._stopped("gradient", self._window.rows))

    def _stopped(self, what: str, rows: list[int]) -> str:
        cells = self.stream.corpus.name_cells(np.asarray(rows))
        return (
            f"Training stopped at step {self.state.global_step + 1}: the {what} is not finite, "
            f"with cells {cells}. Checkpoints in {self.args.output_dir} are from before. "
            "Lower the learning rate, or look at these cells."
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the objectives' own values, and write the record to the history."""
        record: dict[str, Any] = {"step": self.state.global_step}
        if "loss" in logs:
            logs.update(self._window.means(int(self.args.logging_steps)))
            names = [name for name in logs if name != "epoch"]
            record |= {"kind": "train", **{name: logs[name] for name in names}}
        elif any(name.startswith("eval_") for name in logs):
            values = {name.removeprefix("eval_"): value for name, value in logs.items()}
            record |= {"kind": "validation", **{k: v for k, v in values.items() if k != "epoch"}}
        if "kind" in record and self.history is not None:
            self.history.add(record)
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Losses on the held-out cells."""
        if self.validation is None:
            return {}
        bf16 = self.recipe.precision == "bf16"
        with not_gathering(), whole(self.model_wrapped):
            model = self.accelerator.unwrap_model(self.model)
            values = self.validation(model, self.args.device, bf16)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(dict(metrics))
        self._window.restart_clock()
        return metrics

    def trained(self, blank: Callable[[], Pretraining]) -> Pretraining:
        """The model after training, in one piece; ``blank`` makes one of its kind."""
        return gathered(self.accelerator, self.model_wrapped, blank)


class _Window:
    """Sums over the steps since the last record."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.n = self.cells = self.tokens = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Time from now on, so that validation does not count as training."""
        self.since = time.perf_counter()

    def add(self, metrics: dict[str, Tensor], batch: dict[str, Any]) -> None:
        self.rows = batch["rows"]
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.n += 1
        self.cells += len(self.rows)
        self.tokens += next(iter(batch["views"].values()))["indptr"][-1]

    def means(self, n_steps: int) -> dict[str, float]:
        """Means of metrics and the speed, numbers of cells and tokens; starts a new window.

        Means are over all processes, and so are the sums of cells and tokens.
        """
        seconds = time.perf_counter() - self.since
        names = sorted(self.sums)
        values = torch.stack([self.sums[name].float() / self.n for name in names])
        counts = torch.tensor([self.cells, self.tokens], dtype=torch.float64, device=values.device)
        out = dict(zip(names, mean_over_processes(values).tolist(), strict=True))
        cells, tokens = (mean_over_processes(counts) * n_processes()).round().int().tolist()
        out |= {"cells": cells, "tokens": tokens, "seconds": round(seconds, 3)}
        out["steps_per_second"] = round(n_steps / max(seconds, 1e-9), 4)
        self._reset()
        return out


class _Watch(Watch):
    def on_save(self, args, state, control, **kwargs):
        wait_for_all()  # each process has its own file in the checkpoint
        super().on_save(args, state, control, **kwargs)

    def on_log(self, args, state, control, logs=None, **kwargs):
        shown = {k: f"{v:.3f}" for k, v in (logs or {}).items() if k in ("loss", "mlm", "simcse")}
        if shown:
            self.bar.set_postfix(shown)
