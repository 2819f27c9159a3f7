"""The part of `transformers.Trainer` that is ours: loss, groups of weights, the best epoch."""

from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import DataLoader

from .._history import History
from .._training import Watch, as_it_is, seed_of
from ._network import Network, cross_entropy, parameter_groups
from ._recipes import Recipe
from ._stream import Stream
from ._validation import Best, Validation


class Trainer(transformers.Trainer):
    """Fine-tunes a :class:`Network` and keeps the weights of the epoch to be used.

    Parameters
    ----------
    network, args, stream, recipe
        What is trained, and how.
    validation
        Scores the network on the cells set aside.
    weights
        Weight of each class in the loss, for each key; None: all alike.
    history
        Where records go.
    best
        Keeps the weights of the best epoch.
    """

    def __init__(
        self,
        network: Network,
        args: transformers.TrainingArguments,
        stream: Stream,
        recipe: Recipe,
        *,
        validation: Validation,
        weights: list[Tensor] | None,
        history: History,
        best: Best,
    ) -> None:
        super().__init__(model=network, args=args, train_dataset=stream, eval_dataset=stream)
        self.recipe, self.stream, self.validation = recipe, stream, validation
        self.class_weights, self.history, self.best = weights, history, best
        self._rows: list[int] = []
        self.watch = _Watch(self, "Fine-tuning", leave=False)
        self.add_callback(self.watch)
        self.remove_callback(transformers.PrinterCallback)  # it prints

    def get_train_dataloader(self) -> DataLoader:
        """Whole batches as they come."""
        return DataLoader(self.stream, batch_size=None, collate_fn=as_it_is)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with a learning rate of their own for heads and votes."""
        if self.optimizer is None:
            network = self.accelerator.unwrap_model(self.model)
            self.optimizer = torch.optim.AdamW(parameter_groups(network, self.recipe))
        return self.optimizer

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the keys' cross-entropies; one that is not finite ends the training."""
        torch.manual_seed(seed_of(self.recipe.seed, inputs["number"], 3))
        logits = model(inputs)
        loss = cross_entropy(logits, inputs["codes"], self.class_weights)
        self._rows = inputs["rows"]
        if not torch.isfinite(loss):
            raise FloatingPointError(self._stopped("loss"))
        return (loss, logits) if return_outputs else loss

    def check_gradients(self, model: torch.nn.Module) -> None:
        """End the training before a gradient that is not finite reaches the weights."""
        trained = list(model.parameters())
        norms = torch._foreach_norm([p.grad for p in trained if p.grad is not None])
        if not torch.isfinite(torch.stack(norms)).all():
            raise FloatingPointError(self._stopped("gradient"))

    def _stopped(self, what: str) -> str:
        return (
            f"Fine-tuning stopped at step {self.state.global_step + 1}: the {what} is not finite, "
            f"with the training cells {self._rows[:10]}. What was saved before stays. Lower "
            "learning_rate, or look at these cells."
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write the record to the history."""
        names = {"loss": "loss", "learning_rate": "learning_rate"}
        record = {new: float(logs[old]) for old, new in names.items() if old in logs}
        if "loss" in record and self.is_world_process_zero():
            self.history.add({**self._where(), **record})
        super().log(logs, start_time)

    def _where(self) -> dict[str, Any]:
        step = self.state.global_step
        return {"step": step, "epoch": round(step / self.stream.steps_per_epoch, 4)}

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss and scores of the validation cells; remembers the best weights."""
        network = self.accelerator.unwrap_model(self.model)
        record = {**self._where(), **self.validation(network)}
        if self.is_world_process_zero():
            self.history.add(record)
        self.best.offer(network, record)
        self.watch.show(record)
        self.control.should_training_stop |= self.best.is_final(record, self.recipe.patience)
        return {f"{metric_key_prefix}_{name}": value for name, value in record.items()}


class _Watch(Watch):
    def show(self, record: dict[str, Any]) -> None:
        """Put the score of an epoch beside the bar."""
        if "validation_macro_f1" in record:
            self.bar.set_postfix(macro_f1=f"{record['validation_macro_f1']:.3f}")
