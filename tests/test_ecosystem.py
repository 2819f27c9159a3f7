"""Files for people and machines around the package say what is true."""

import argparse
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

import scmix
from scmix.cli._main import make_parser

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CLI = (ROOT / "docs" / "cli.md").read_text("utf-8")
LLMS = (ROOT / "llms.txt").read_text("utf-8")


def test_the_command_is_installed() -> None:
    from scmix import cli

    assert PROJECT["project"]["scripts"] == {"scmix": "scmix.cli:main"}
    assert callable(cli.main)


def test_entry_of_the_ecosystem_list() -> None:
    entry = yaml.safe_load((ROOT / ".github" / "meta.yaml").read_text("utf-8"))
    assert entry["name"] == entry["install"]["pypi"] == PROJECT["project"]["name"]
    assert entry["version"] == scmix.__version__
    assert entry["license"] == PROJECT["project"]["license"]
    needed = {"description", "project_home", "documentation_home", "tags", "category", "contact"}
    assert needed <= set(entry)
    assert re.fullmatch(r"10\.\d{4,9}/[-._;()/:A-Za-z0-9]+", entry["publications"][0])


@pytest.mark.parametrize("name", [*(ROOT / ".github").rglob("*.y*ml"), *ROOT.glob(".*.yaml")])
def test_settings_of_services_can_be_read(name: Path) -> None:
    assert yaml.safe_load(name.read_text("utf-8"))


def test_continuous_integration_runs_targets_that_exist() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yaml").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"make ([a-z-]+)", workflow)) | {"test", "test-newest"}
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for version in ("3.11", "3.12", "3.13", "3.14"):
        assert f'"{version}"' in workflow
        assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]


def test_dependency_groups_point_to_extras() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    for group in PROJECT["dependency-groups"].values():
        (one,) = group
        named = re.fullmatch(r"scmix\[([\w,]+)\]", one)
        assert named
        assert set(named[1].split(",")) <= set(extras)


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("scmix ")]


@pytest.mark.parametrize("line", commands(CLI))
def test_commands_of_the_page_can_be_typed(line: str) -> None:
    args = make_parser().parse_args(shlex.split(line)[1:])
    assert callable(args.run)


def test_the_page_names_every_command() -> None:
    (action,) = (
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    for name in action.choices:
        assert f"`scmix {name}" in CLI
        assert f"`scmix {name}" in LLMS


def test_links_of_llms_txt_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", LLMS)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_functions_of_llms_txt_exist() -> None:
    for room, name in re.findall(r"scmix\.(\w+)\.(\w+)\(", LLMS):
        assert callable(getattr(getattr(scmix, room), name))
