"""Work that several processes share through a folder: each task is done once, by whoever is free.

A task is done when its result is there: a file or folder that is moved into place when it is
complete. Whoever works on one holds a lock that the system lets go of when the process ends,
however it ends; so a task whose process was killed is taken up by another one, or by the next run.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..._errors import InputError

WAIT = 0.2  # seconds between looks at what other processes do


@dataclass(frozen=True)
class Task:
    """A piece of work.

    Parameters
    ----------
    result
        Folder that is there when the task is done.
    run
        Fills a folder that then becomes the result.
    """

    result: Path
    run: Callable[[Path], None]

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self.result.exists()


def do_all(tasks: Sequence[Task], locks: Path, each: Callable[[], object] = bool) -> None:
    """Do the tasks that nobody has done and nobody works on, until all are done.

    Parameters
    ----------
    tasks
        What to do.
    locks
        Folder for the locks; all processes that share the work share it.
    each
        Called once for every task that is done, by this process or another.

    Raises
    ------
    InputError
        When input of tasks cannot be used; after all others are done.
    """
    left, unusable = list(tasks), []
    while left:
        left_before = len(left)
        for task in list(left):
            try:
                over = task.done or _try(task, locks)
            except InputError as error:
                over = True
                unusable.append(error)
            if over:
                left.remove(task)
                each()
        if len(left) == left_before:
            time.sleep(WAIT)
    if len(unusable) > 1:
        every = "\n".join(f"- {error}" for error in unusable)
        raise InputError(f"{len(unusable)} files cannot be used:\n{every}") from unusable[0]
    if unusable:
        raise unusable[0]


def _try(task: Task, locks: Path) -> bool:
    """Do a task unless another process is at it; return whether it is done now."""
    with claim(locks / f"{task.result.name}.lock") as mine:
        if mine and not task.done:
            partial = task.result.with_name(f"{task.result.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            partial.mkdir()
            try:
                task.run(partial)
                partial.replace(task.result)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return task.done


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Hold a lock, if no other process holds it."""
    with open(path, "a+b") as file:
        yield _lock(file)


def _lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
