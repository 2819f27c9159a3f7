"""What pretraining and fine-tuning ask of `transformers.Trainer` alike."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm.auto import tqdm
from transformers import TrainingArguments

from ._run_folder import mark_complete
from .settings import settings


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    """Arguments of a run whose batches, records and progress bar are ours.

    Parameters
    ----------
    folder
        Where checkpoints go.
    **options
        Of `transformers.TrainingArguments`.
    """
    args = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        logging_nan_inf_filter=False,
        # batches are in the right place already when a run resumes
        ignore_data_skip=True,
        remove_unused_columns=False,
        label_names=[],
        disable_tqdm=True,
        report_to="none",
        **options,
    )
    if args.n_gpu > 1:  # DataParallel would cut packed batches; several GPUs take several processes
        args._n_gpu = 1
    return args


class Watch(transformers.TrainerCallback):
    """Starts the stream at the right batch, shows progress, and marks complete checkpoints.

    Parameters
    ----------
    trainer
        Has a `stream` with a `start`, and `check_gradients(model)`.
    title
        Of the progress bar.
    leave
        Whether the bar stays when it is full.
    """

    def __init__(self, trainer: Any, title: str, *, leave: bool = True) -> None:
        self.trainer, self.title, self.leave = trainer, title, leave
        self.bar = tqdm(disable=True)

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.stream.start = state.global_step * args.gradient_accumulation_steps
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.title,
            leave=self.leave,
            disable=not settings.progress or not state.is_world_process_zero,
        )

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.trainer.check_gradients(model)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_epoch_end(self, args, state, control, **kwargs):
        # The last step has been recorded, validated and saved; Trainer would do it all again.
        control.should_log = control.should_evaluate = control.should_save = False
        return control

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


def as_it_is(batch: Any) -> Any:
    """The collate function of streams that yield whole batches."""
    return batch


def seed_of(seed: int, number: int, purpose: int) -> int:
    """An independent seed for the random numbers of one batch."""
    return int(np.random.SeedSequence([seed, number, purpose]).generate_state(1, np.uint64)[0])


@contextmanager
def own_random_state() -> Iterator[None]:
    """Leave the global random states of Python, numpy and torch as they were."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
