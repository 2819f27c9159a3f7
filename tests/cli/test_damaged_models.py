"""Folders that are no model, or no longer one: refused before any work, in Python and the shell."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scmix import tl
from scmix._errors import ModelFileError


def flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one bit": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "a pickle": lambda path: path.write_bytes(b"\x80\x04." + path.read_bytes()[3:]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model(damage, cells, model, scmix):
    shutil.copytree(model, "copy")
    DAMAGES[damage](Path("copy/model.safetensors"))
    with pytest.raises(ModelFileError, match=r"model\.safetensors .* Copy the model again"):
        tl.embed(cells, "copy")
    assert "X_scmix" not in cells.obsm
    code, _, err = scmix("embed", "in.h5ad", "-o", "out.h5ad", "--model", "copy")
    assert (code, "Copy the model again" in err) == (2, True)
    assert not Path("out.h5ad").exists()


def test_an_encoder_is_no_classifier(cells, model, scmix):
    expected = r"(holds|is) (no|an) .*(classifier|encoder).*fine.tune"
    with pytest.raises(ValueError, match=expected):
        tl.annotate(cells, model)
    code, _, err = scmix("annotate", "in.h5ad", model, "-o", "out.h5ad")
    assert code == 2
    assert re.search(expected, err)
