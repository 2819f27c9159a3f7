"""The options of the commands are the arguments of the functions."""

import inspect
import re
import subprocess
import sys
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from scmix import classifiers, models, pretrain, tl
from scmix._errors import InputError
from scmix.cli._main import make_parser
from scmix.cli._options import arguments, settings
from scmix.cli._words import flag_of

# command -> function, the least that has to be typed, arguments that a command cannot have
COMMANDS = {
    "embed": (tl.embed, "IN -o OUT", {"adata", "copy"}),
    "annotate": (tl.annotate, "IN C -o OUT", {"adata", "copy"}),
    "fine-tune": (tl.fine_tune, "IN L -o OUT", {"adata", "settings"}),
    "perturb": (tl.perturb, "IN -o OUT", {"adata", "copy"}),
    "corpus build": (pretrain.build_corpus, "F -o OUT", set()),
    "pretrain": (pretrain.run_recipe_file, "R", set()),
    "models list": (models.list, "F", set()),
    "models show": (models.card, "M", set()),
    "models import": (models.import_geneformer, "F -o OUT", set()),
    "models download": (models.download, "R -o OUT", set()),
}


@pytest.fixture(params=COMMANDS)
def command(request):
    function, least, left_out = COMMANDS[request.param]
    typed = [*request.param.split(), *least.split()]
    return function, typed, left_out


def test_options_are_the_arguments(command):
    function, typed, left_out = command
    parameters = set(inspect.signature(function).parameters) - left_out
    options = set(arguments(make_parser().parse_args(typed)))
    assert options - {"check"} == parameters


def test_defaults_are_those_of_the_function(command):
    function, typed, _ = command
    given = arguments(make_parser().parse_args(typed))
    for name, parameter in inspect.signature(function).parameters.items():
        by_place = named_by_place(typed)
        if (
            parameter.default is not parameter.empty
            and name in given
            and name not in by_place | {"vocabulary"}
        ):
            assert given[name] == parameter.default, name


def test_options_are_named_like_the_arguments(command, capsys):
    _, typed, _ = command
    args = make_parser().parse_args(typed)
    text = help_of(typed, capsys)
    for name in arguments(args).keys() - named_by_place(typed):
        assert re.search(rf"{flag_of(name, args)}\b", text), name


def test_choices_are_those_of_the_function(command):
    function, typed, _ = command
    args = make_parser().parse_args(typed)
    for name, hint in get_type_hints(function).items():
        for choices in (part for part in (hint, *get_args(hint)) if get_origin(part) is Literal):
            for choice in get_args(choices):
                chosen = make_parser().parse_args([*typed, flag_of(name, args), str(choice)])
                assert getattr(chosen, name) == choice


def help_of(typed, capsys):
    with pytest.raises(SystemExit, match="0"):
        make_parser().parse_args([*typed, "--help"])
    return capsys.readouterr().out


def named_by_place(typed):
    """Arguments of the function that are positional in the command, and the output."""
    args = vars(make_parser().parse_args(typed))
    words = [word for word in typed if word.isupper()]
    return {name for name, value in args.items() if value in words or value in [[w] for w in words]}


def test_settings_of_recipes_can_be_set():
    known = set(inspect.signature(classifiers.Recipe).parameters)
    pairs = ["epochs=3", "learning_rate=1e-4", "balance=sampling", "gene_votes=true"]
    found = settings(pairs)
    assert found == {
        "epochs": 3, "learning_rate": 1e-4, "balance": "sampling", "gene_votes": True
    }  # fmt: skip
    assert set(found) <= known
    with pytest.raises(InputError, match="Found --set epochs; expected NAME=VALUE"):
        settings(["epochs"])


def test_help_is_there_at_once_and_names_every_command():
    code = """
import sys
from scmix.cli import main
try:
    main(["--help"])
finally:
    heavy = {"torch", "transformers", "anndata", "pandas", "numpy", "scanpy", "h5py", "zarr"}
    assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("embed", "annotate", "fine-tune", "perturb", "corpus", "pretrain", "models"):
        assert f"\n    {name} " in done.stdout or f"\n    {name}\n" in done.stdout
    assert "doctor" in done.stdout


def test_version(scmix):
    from scmix import __version__ as version

    assert scmix("--version") == (0, f"scmix {version}\n", "")


def test_wrong_options_end_with_2(scmix):
    for typed in (["embed", "in.h5ad"], ["embed"], [], ["embed", "a", "-o", "b", "--layr", "x"]):
        code, out, err = scmix(*typed)
        assert (code, out) == (2, "")
        assert "usage: scmix" in err
