"""A build that is killed goes on where it was; several processes build what one would."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scmix.pretrain import Corpus, build_corpus
from scmix.pretrain._building import stages

from .conftest import counts_of, write_cells

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")

START = """
import os, signal, sys, time
from pathlib import Path
from scmix.genes import Vocabulary
from scmix.pretrain import build_corpus
from scmix.pretrain._building import parts, stages
from scmix.settings import settings
settings.progress = False
folder, files = Path(sys.argv[1]), sys.argv[2:]
out = folder / "out" / "corpus"
def build():
    vocabulary = Vocabulary.read(folder / "vocabulary.csv.gz")
    build_corpus(files, out, vocabulary=vocabulary, min_genes=5, shard_tokens=1000, values=True,
                 medians="corpus")
"""
KILLED = """
points = [(parts, "_write_report"), (stages, "write_part"), (stages, "write_fates"),
          (stages, "write_cells"), (stages, "_write_sketch"), (stages, "write_shard"),
          (stages, "_write_manifest"), (stages, "_move"), (stages, "_remove")]
several = {"write_part", "_write_sketch", "write_shard"}  # of these the second is cut off
for module, name in points:
    if (child := os.fork()) == 0:
        calls = []
        def killed(*arguments, real=getattr(module, name)):
            if calls or name not in several:
                os.kill(os.getpid(), signal.SIGKILL)
            calls.append(real(*arguments))
        setattr(module, name, killed)
        build()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(name, os.WIFSIGNALED(status), out.exists(), flush=True)
    if name == "write_fates":
        stages.write_part = lambda *_: os._exit(9)  # no file is read again
build()
"""
TOGETHER = """
real = stages.write_part
def slow(*arguments):
    time.sleep(0.1)
    (folder / f"did-{os.getpid()}").touch()
    real(*arguments)
stages.write_part = slow
children = []
for _ in range(3):
    children.append(os.fork())
    if children[-1] == 0:
        build()
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("many")
    return [
        write_cells(
            folder / f"{i}.h5ad", counts_of(40, seed=i // 2), ("human", "mouse")[i % 3 == 0]
        )
        for i in range(6)
    ]


@pytest.fixture(scope="module")
def alone(many, vocabulary, tmp_path_factory) -> Corpus:
    out = tmp_path_factory.mktemp("alone") / "corpus"
    options = {"min_genes": 5, "shard_tokens": 1000, "values": True, "medians": "corpus"}
    return build_corpus(many, out, vocabulary=vocabulary, **options)


def run(script: str, folder: Path, files: list[Path], vocabulary) -> str:
    vocabulary.write(folder / "vocabulary.csv.gz")
    done = subprocess.run(
        [sys.executable, "-c", START + script, str(folder), *map(str, files)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_same(folder: Path, alone: Corpus) -> None:
    built = Corpus.open(folder / "out" / "corpus", verify=True)
    assert len(built.shards) > 2
    assert built.manifest["files"] == alone.manifest["files"]
    assert json.dumps(built.manifest["sources"]) == json.dumps(alone.manifest["sources"])
    assert [path.name for path in (folder / "out").iterdir()] == ["corpus"]


def test_killed_at_every_stage_and_gone_on(tmp_path, many, alone, vocabulary):
    lines = [line.split() for line in run(KILLED, tmp_path, many, vocabulary).splitlines()]
    assert len(lines) == 9
    for name, killed, there in lines:
        assert killed == "True"
        assert there == str(name == "_remove")
    assert_same(tmp_path, alone)


def test_three_processes_build_what_one_does(tmp_path, many, alone, vocabulary):
    run(TOGETHER, tmp_path, many, vocabulary)
    assert len(list(tmp_path.glob("did-*"))) == 3
    assert_same(tmp_path, alone)


def test_processes_started_by_the_call_help(tmp_path, many, alone, vocabulary, monkeypatch):
    read = []
    real = stages.write_part

    def slow(plan, number, folder):
        read.append(number)
        time.sleep(4)
        real(plan, number, folder)

    monkeypatch.setattr(stages, "write_part", slow)
    options = {"min_genes": 5, "shard_tokens": 1000, "values": True, "medians": "corpus"}
    out = tmp_path / "out" / "corpus"
    build_corpus(many, out, vocabulary=vocabulary, n_jobs=2, **options)
    assert len(read) < len(many)
    assert_same(tmp_path, alone)
