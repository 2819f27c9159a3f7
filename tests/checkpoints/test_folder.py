"""A folder is there whole or not at all: full disks, Ctrl-C, kills and other processes."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scmix import checkpoints
from scmix._errors import InputError, ResourceError
from scmix.checkpoints import Model, _folder
from scmix.checkpoints._folder import find_folder, write_folder

NAMES = ("a.txt", "b.txt")
OLD = dict.fromkeys(NAMES, b"old")
NEW = dict.fromkeys(NAMES, b"new")

both_ways = pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two steps"])


def write(folder: Path, files: dict[str, bytes], *, overwrite: bool = False) -> None:
    write_folder(folder, files, overwrite=overwrite, replaceable=NAMES)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "deep" / "folder", OLD)
    return tmp_path / "deep" / "folder"


def test_a_new_folder_and_its_parents(folder: Path) -> None:
    assert contents(folder) == OLD
    assert list(folder.parent.iterdir()) == [folder]
    reference = folder.parent / "made by hand"
    reference.mkdir()
    assert folder.stat().st_mode == reference.stat().st_mode, "the umask decides"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    assert contents(tmp_path) == OLD


def test_an_existing_folder_needs_overwrite(folder: Path) -> None:
    with pytest.raises(InputError, match=r"exists\. Pass overwrite=True"):
        write(folder, NEW)
    assert contents(folder) == OLD


@both_ways
def test_overwrite(folder: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(_folder, "_exchange", lambda one, other: False)
    write(folder, NEW, overwrite=True)
    assert contents(folder) == NEW
    assert list(folder.parent.iterdir()) == [folder]


def test_folders_are_exchanged_in_one_step_on_linux(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere it may not be possible")
    write(tmp_path / "a", OLD)
    write(tmp_path / "b", NEW)
    assert _folder._exchange(tmp_path / "a", tmp_path / "b")
    assert (contents(tmp_path / "a"), contents(tmp_path / "b")) == (NEW, OLD)
    assert not _folder._exchange(tmp_path / "a", tmp_path / "missing")


def test_files_of_others_are_never_deleted(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'notes\.txt', which is not part of a checkpoint"):
        write(folder, NEW, overwrite=True)
    assert contents(folder) == OLD | {"notes.txt": b"mine"}


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        write(tmp_path / "file", NEW, overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_link_to_a_folder_stays_a_link(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest"
    link.symlink_to(folder)
    write(link, NEW, overwrite=True)
    assert link.is_symlink()
    assert contents(folder) == NEW


def test_names_with_spaces_and_letters_of_the_world(tmp_path: Path) -> None:
    folder = tmp_path / "Zellmodell ä 細胞"
    write(folder, OLD)
    write(folder, NEW, overwrite=True)
    assert contents(folder) == NEW


STEPS = ("os.mkdir", "os.open", "os.fsync", "os.rename")


def fail_at(
    monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException, *, exchange: bool = True
) -> list[int]:
    """Raise at the n-th call of any function that changes the disk; the list counts the calls."""
    calls = [0]

    def failing(function: Callable) -> Callable:
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == step:
                raise error
            return function(*args, **kwargs)

        return call

    for name in STEPS:
        monkeypatch.setattr(name, failing(getattr(os, name.removeprefix("os."))))
    swap = failing(_folder._exchange) if exchange else lambda one, other: False
    monkeypatch.setattr(_folder, "_exchange", swap)
    return calls


FAILING = {
    "make the hidden folder": (2, True),
    "flush the first file": (3, True),
    "flush the second file": (4, True),
    "move it into place": (7, True),
    "move the old one away": (8, False),
    "move the new one into its place": (9, False),
}


@pytest.mark.parametrize("at", FAILING)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_disk_that_is_full_or_read_only(folder: Path, at: str, code: int) -> None:
    step, exchange = FAILING[at]
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, step, OSError(code, os.strerror(code)), exchange=exchange)
        with pytest.raises(ResourceError, match=f"{os.strerror(code)}.*Nothing was changed"):
            write(folder, NEW, overwrite=True)
    assert contents(folder) == OLD
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("step", [5, 6, 9, 10])
def test_a_file_system_that_cannot_flush_folders(folder: Path, step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        calls = fail_at(patch, step, OSError(errno.EINVAL, "no"))
        write(folder, NEW, overwrite=True)
        assert calls[0] >= step
    assert contents(folder) == NEW


@both_ways
@pytest.mark.parametrize("step", range(1, 11))
def test_ctrl_c(folder: Path, step: int, exchange: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        calls = fail_at(patch, step, KeyboardInterrupt(), exchange=exchange)
        try:
            write(folder, NEW, overwrite=True)
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
    assert interrupted == (calls[0] >= step)
    assert contents(folder) in ([OLD, NEW] if interrupted else [NEW])
    assert list(folder.parent.iterdir()) == [folder]


KILLED = """
import os, signal, shutil, sys
from pathlib import Path
from scmix.checkpoints import _folder

folder, step, exchange = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
calls = 0

def killing(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

_folder._exchange = killing(_folder._exchange if exchange else lambda one, other: False)
shutil.rmtree = killing(shutil.rmtree)
for name in ("mkdir", "open", "fsync", "rename"):
    setattr(os, name, killing(getattr(os, name)))
files = {path.name: path.read_bytes() for path in Path(sys.argv[4]).iterdir()}
_folder.write_folder(folder, files, overwrite=True, replaceable=list(files))
"""


@both_ways
def test_killed_at_every_step(
    model: Model, save: Callable[..., Path], tmp_path: Path, exchange: bool
) -> None:
    """Whenever a save is killed, the old or the new checkpoint loads, and the next save works."""
    new = save(checkpoints.untrained(model.config, model.vocabulary, seed=9), "new")
    shas = [model.sha256, checkpoints.load(new).sha256]
    found = []
    for step in range(1, 40):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        folder = save(model, "runs/latest")
        arguments = [str(folder), str(step), str(exchange), str(new)]
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
        found.append(shas.index(checkpoints.load(folder).sha256))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        save(model, "runs/latest", overwrite=True)
        assert checkpoints.load(folder).sha256 == shas[0]
        left = [path.name for path in folder.parent.iterdir() if path != folder]
        assert all(name.startswith(".latest.partial-") for name in left)
    assert done.returncode == 0
    assert found == sorted(found), "first the old one loads, then the new one"
    assert found.count(0) >= 8


def test_the_newest_is_found_when_two_replacements_were_cut_short(folder: Path) -> None:
    older, newer = (folder.with_name(f".folder.previous-{name}") for name in "ab")
    folder.rename(newer)
    write(older, NEW)
    os.utime(older, (1, 1))
    assert find_folder(folder) == newer
    write(folder, NEW)
    assert list(folder.parent.iterdir()) == [folder]


def between(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
    """Let another process do one step after each look at the names beside a folder."""
    look, left = _folder._siblings, list(steps)

    def siblings(folder: Path, kind: str) -> list[Path]:
        found = look(folder, kind)
        if left:
            left.pop(0)()
        return found

    monkeypatch.setattr(_folder, "_siblings", siblings)


def test_a_replacement_that_ends_while_the_reader_looks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither name is there when it is looked for, although one of them always is."""
    new = folder.with_name(".folder.partial-0")
    folder.rename(new)
    between(monkeypatch, lambda: new.rename(folder))
    assert find_folder(folder) == folder


def test_a_replacement_that_begins_while_the_reader_looks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = folder.with_name(".folder.partial-1"), folder.with_name(".folder.previous-2")
    folder.rename(one)
    between(
        monkeypatch,
        lambda: one.rename(folder),  # previous ones were looked for: none
        lambda: folder.rename(two),  # partial ones were looked for: none any more
    )
    assert find_folder(folder) == two


def test_a_wrong_path_is_answered_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_folder.time, "sleep", lambda seconds: pytest.fail("waits"))
    write(folder.with_name("other"), OLD)
    assert find_folder(folder.with_name("missing")) is None
    assert find_folder(folder.with_name("missing") / "deep") is None


def test_a_first_save_that_was_killed_is_waited_for_and_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(_folder.time, "sleep", pauses.append)
    folder.rename(folder.with_name(".folder.partial-0"))
    assert find_folder(folder) is None
    assert 0.1 < sum(pauses) < 5


def test_what_another_process_sets_aside_right_now_is_not_deleted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = folder.with_name(".folder.previous-0")
    between(monkeypatch, lambda: folder.rename(aside))
    _folder._discard_previous(folder)
    assert contents(aside) == OLD
    _folder._discard_previous(folder)
    assert contents(aside) == OLD, "nothing else is left of the checkpoint"


def test_a_writer_while_another_one_sets_the_folder_aside(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside, look = folder.with_name(".folder.previous-0"), os.listdir

    def gone(path: Path) -> list[str]:
        if path == folder and not aside.exists():
            folder.rename(aside)
        return look(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", gone)
        write(folder, NEW, overwrite=True)
    assert contents(folder) == NEW
    assert os.listdir(folder.parent) == ["folder"]


def test_what_is_half_deleted_is_never_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = folder.with_name(".folder.previous-0")
    write(half, OLD)

    def killed(path: Path, ignore_errors: bool) -> None:
        (path / NAMES[0]).unlink()

    monkeypatch.setattr(_folder.shutil, "rmtree", killed)
    _folder._discard_previous(folder)
    folder.rename(folder.with_name(".folder.previous-1"))
    assert contents(find_folder(folder)) == OLD


WRITER = """
import sys, time
from pathlib import Path
from scmix.checkpoints import _folder

if sys.argv[3] == "False":
    _folder._exchange = lambda one, other: False
files = {path.name: path.read_bytes() for path in Path(sys.argv[2]).iterdir()}
print("ready", flush=True)
for _ in range(40):
    time.sleep(0.03)
    _folder.write_folder(
        Path(sys.argv[1]), files, overwrite=True, replaceable=list(files)
    )
"""


@both_ways
def test_two_writers_and_a_reader(model: Model, save: Callable[..., Path], exchange: bool) -> None:
    other = checkpoints.untrained(model.config, model.vocabulary, seed=9)
    sources = [save(model, "one"), save(other, "two")]
    target = save(model, "target")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target), str(source), str(exchange)],
            stdout=subprocess.PIPE,
        )
        for source in sources
    ]
    for writer in writers:
        writer.stdout.readline()
    seen = set()
    while any(writer.poll() is None for writer in writers):
        seen.add(checkpoints.load(target).sha256)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen == {model.sha256, other.sha256}
    assert not [path for path in target.parent.iterdir() if path.name.startswith(".")]
    for writer in writers:
        writer.stdout.close()
