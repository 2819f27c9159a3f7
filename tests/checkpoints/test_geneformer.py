"""Published models, laid out as their users have them on disk, become checkpoints of scmix."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

import scmix
from scmix import _slots
from scmix._errors import IncompatibleModelError, InputError, ModelFileError
from scmix.batches import Sequences, add_special
from scmix.checkpoints import Model
from scmix.genes import Vocabulary
from scmix.inference import run
from scmix.models import import_geneformer

V1, V2 = ["<pad>", "<mask>"], ["<pad>", "<mask>", "<cls>", "<eos>"]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab9d\nsize 788424\n"


@pytest.fixture(autouse=True)
def _small_reservation() -> None:
    """The bundled vocabulary is read here, which needs more than tiny ones."""


def genes(species: str, n: int) -> list[str]:
    table = Vocabulary.bundled().genes
    return table.ensembl_id[table.species == species].iloc[:n].tolist()


def dictionaries(special: list[str], names: list[str], seed: int) -> dict[str, dict]:
    """Tokens as np.int16 and medians as np.float64, as published."""
    rng = np.random.default_rng(seed)
    return {
        "token_dictionary": {name: np.int16(i) for i, name in enumerate([*special, *names])},
        "gene_median_dictionary": {name: np.float64(rng.gamma(2) + 0.1) for name in names},
    }


def write_dictionaries(folder: Path, tag: str, content: dict[str, dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in content.items():
        (folder / f"{name}{tag}.pkl").write_bytes(pickle.dumps(values))


def write_bert(
    folder: Path, n_tokens: int, kind: type = BertForMaskedLM, **options
) -> torch.nn.Module:
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
        "hidden_act": "relu",
        "initializer_range": 0.4,
        "pad_token_id": 0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(n_tokens)
        bert = kind(BertConfig(vocab_size=n_tokens, **(sizes | options))).eval()
    bert.save_pretrained(folder)
    return bert


class Published:
    """A clone of the published repository: several models, and the dictionaries of two versions."""

    def __init__(self, root: Path) -> None:
        self.root, self.v1 = root / "Geneformer", root / "Geneformer" / "Geneformer-V1-10M"
        self.genes = genes("human", 60)
        self.content = {
            "v1": dictionaries(V1, self.genes, 1),
            "v2": dictionaries(V2, self.genes[5:], 2),
        }
        self.content["v2"]["gene_name_id_dict"] = {"NEWNAME": self.genes[7], "A|B": self.genes[8]}
        self.bert = {
            "v1": write_bert(self.v1, 62),
            "v2": write_bert(self.root, 59, max_position_embeddings=40),
        }
        code = self.root / "geneformer"
        write_dictionaries(code, "_gc104M", self.content["v2"])
        write_dictionaries(code / "gene_dictionaries_30m", "_gc30M", self.content["v1"])
        (code / "tokenizer.py").write_text("raise SystemExit('run')")


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    """A folder with weights and dictionaries side by side."""
    names = genes("human", 30)
    write_bert(tmp_path / "v1", 32)
    write_dictionaries(tmp_path / "v1", "", dictionaries(V1, names, 3))
    return tmp_path / "v1"


def counts(names: list[str], n_cells: int = 7) -> ad.AnnData:
    rng = np.random.default_rng(0)
    matrix = rng.poisson(1.5, (n_cells, len(names))).astype(np.float32)
    order = rng.permutation(len(names))
    var = pd.DataFrame(index=np.array(names)[order])
    return ad.AnnData(sp.csr_matrix(matrix[:, order]), var=var)


def published_sequences(adata: ad.AnnData, content: dict[str, dict], length: int) -> list[list]:
    """The published formula: X / n_counts * 10,000 / median, highest first, special tokens last."""
    tokens, medians = content["token_dictionary"], content["gene_median_dictionary"]
    cells = []
    for row in adata.X.toarray().astype(np.float64):
        scores = {
            int(tokens[gene]): count / row.sum() * 10_000 / medians[gene]
            for gene, count in zip(adata.var_names, row, strict=True)
            if count > 0 and gene in medians
        }
        cell = sorted(scores, key=lambda token: -scores[token])
        around = "<cls>" in tokens
        cell = cell[: length - 2 * around]
        cells.append([2, *cell, 3] if around else cell)
    return cells


def sequences(adata: ad.AnnData, model: Model) -> list[list[int]]:
    length = model.config.max_position_embeddings
    blocks = _slots.iter_sequences(adata, model.vocabulary)
    cells = [
        add_special(block.sequences, model.vocabulary, block.species, max_length=length)
        for block in blocks
    ]
    return [cell.tolist() for block in cells for cell in block]


@pytest.mark.parametrize(("version", "length"), [("v1", 32), ("v2", 40)])
def test_the_published_repository(
    published: Published, tmp_path: Path, version: str, length: int
) -> None:
    folder = published.v1 if version == "v1" else published.root
    model = import_geneformer(folder, tmp_path / "out", licence="Apache-2.0")
    content, bert = published.content[version], published.bert[version]
    names = model.vocabulary.genes.set_index("ensembl_id")
    tokens = {name: int(t) for name, t in content["token_dictionary"].items()}
    assert {**names.token.to_dict(), **model.vocabulary.special} == tokens
    assert names["median"].to_dict() == content["gene_median_dictionary"]
    assert model.vocabulary.mode == "separate"

    adata = counts(published.genes)
    expected = published_sequences(adata, content, length)
    assert sequences(adata, model) == expected
    assert model.manifest["licence"] == "Apache-2.0"
    files = model.manifest["recipe"]["files"]
    assert len(files) == (3 if version == "v1" else 4)

    pool = "mean" if version == "v1" else "cls"
    scmix.tl.embed(adata, str(tmp_path / "out"), pool=pool, hidden_layer=-1, dtype="float32")
    for found, cell in zip(adata.obsm["X_scmix"], expected, strict=True):
        with torch.no_grad():
            hidden = bert.bert(torch.tensor([cell])).last_hidden_state[0]
        wanted = hidden[0] if pool == "cls" else hidden.mean(0)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_names_of_genes(published: Published, tmp_path: Path) -> None:
    model = import_geneformer(published.root, tmp_path / "out")
    table = model.vocabulary.genes.set_index("ensembl_id")
    bundled = Vocabulary.bundled().genes.set_index("ensembl_id")
    named = published.genes[7]
    assert "NEWNAME" in table.aliases[named].split("|")
    assert table.symbol.to_dict() == bundled.symbol.reindex(table.index).to_dict()
    assert table.group.to_dict() == bundled.group.reindex(table.index).to_dict()
    assert not table.aliases.str.contains("A|B", regex=False).any()


@pytest.mark.parametrize("kind", ["mouse", "mix"])
def test_mouse_and_mix_geneformer(tmp_path: Path, kind: str) -> None:
    mouse, human = genes("mouse", 30), genes("human", 30) * (kind == "mix")
    content = dictionaries(V1, [*human, *mouse], 5)
    content = {f"{kind}_{name}": values for name, values in content.items()}
    write_bert(tmp_path / "in", 2 + len(human) + len(mouse), hidden_act="silu")
    write_dictionaries(tmp_path / "in", "_v3", content)
    model = import_geneformer(tmp_path / "in", tmp_path / "out")
    assert model.vocabulary.species == (("human", "mouse") if kind == "mix" else ("mouse",))
    assert (model.vocabulary.prefix(1), model.vocabulary.suffix()) == ([], [])
    plain = {name.removeprefix(f"{kind}_"): values for name, values in content.items()}
    for one in (mouse, human):
        if one:
            assert sequences(counts(one), model) == published_sequences(counts(one), plain, 32)


def test_medians_of_two_species_from_two_files(tmp_path: Path) -> None:
    mouse, human = genes("mouse", 20), genes("human", 20)
    content = dictionaries(V1, [*human, *mouse], 5)
    write_bert(tmp_path / "in", 42)
    write_dictionaries(tmp_path / "in", "", {"token_dictionary": content["token_dictionary"]})
    paths = []
    for name, part in (("human", human), ("mouse", mouse)):
        medians = {gene: content["gene_median_dictionary"][gene] for gene in part}
        paths.append(tmp_path / f"{name}.pkl")
        paths[-1].write_bytes(pickle.dumps(medians))
    both = import_geneformer(tmp_path / "in", tmp_path / "both", gene_median=paths)
    assert both.vocabulary.species == ("human", "mouse")
    with pytest.warns(UserWarning, match="20 of 42 tokens are no human or mouse Ensembl id with"):
        one = import_geneformer(tmp_path / "in", tmp_path / "one", gene_median=paths[0])
    assert one.vocabulary.species == ("human",)
    assert one.vocabulary.n_tokens == 42
    assert sequences(counts(human), one) == sequences(counts(human), both)


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_dictionaries_as_text(v1: Path, tmp_path: Path, suffix: str) -> None:
    expected = import_geneformer(v1, tmp_path / "expected").vocabulary.sha256
    for path in v1.glob("*.pkl"):
        values = {name: x.item() for name, x in pickle.loads(path.read_bytes()).items()}
        path.unlink()
        if suffix == ".json":
            path.with_suffix(suffix).write_text(json.dumps(values))
        else:
            lines = ["gene,value", *(f"{name},{value!r}" for name, value in values.items())]
            path.with_suffix(suffix).write_text("\n".join(lines))
    assert import_geneformer(v1, tmp_path / "out").vocabulary.sha256 == expected


HEADLESS = [BertModel, BertForSequenceClassification, BertForTokenClassification]


@pytest.mark.parametrize("kind", [*HEADLESS, BertForPreTraining])
def test_encoders_with_other_heads(v1: Path, tmp_path: Path, kind: type) -> None:
    bert = write_bert(v1, 32, kind)
    model = import_geneformer(v1, tmp_path / "out")
    encoder = bert if kind is BertModel else bert.bert
    tokens = torch.tensor([5, 9, 2, 31])
    with torch.no_grad():
        found = model.encoder(tokens, [0, 4])
        expected = encoder(tokens[None]).last_hidden_state[0]
        logits = model.encoder.logits(found)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert model.encoder.has_pooler == (kind is not BertForTokenClassification)
    if kind in HEADLESS:
        assert torch.equal(logits, torch.zeros_like(logits)), "an absent head says nothing"
    else:
        wanted = bert(tokens[None]).prediction_logits[0]
        torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)
    recipe = model.manifest["recipe"]
    assert recipe["architecture"] == kind.__name__
    assert recipe["language_model_head"] == (kind not in HEADLESS)
    BertForMaskedLM.from_pretrained(tmp_path / "out")


def test_half_precision_stays_half(v1: Path, tmp_path: Path) -> None:
    BertForMaskedLM.from_pretrained(v1).half().save_pretrained(v1)
    model = import_geneformer(v1, tmp_path / "out")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (v1, tmp_path / "out")]
    assert sizes[1] < 1.1 * sizes[0]
    assert torch.isfinite(model.encoder(torch.tensor([5, 6]), [0, 2])).all()


def test_links_of_the_cache_of_the_hub(v1: Path, tmp_path: Path) -> None:
    cache, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    shutil.copytree(v1, cache)
    for path in cache.iterdir():
        (snapshot / path.name).symlink_to(os.path.relpath(path, snapshot))
    model = import_geneformer(snapshot, tmp_path / "out")
    assert model.sha256 == import_geneformer(v1, tmp_path / "same").sha256


def refuse(
    folder: Path, message: str, error: type = ModelFileError, out: str = "out", **options
) -> None:
    target = folder.parent / out
    before = sorted(folder.parent.iterdir())
    with pytest.raises(error, match=message):
        import_geneformer(folder, target, **options)
    assert sorted(folder.parent.iterdir()) == before, "nothing is left behind"


def test_hostile_dictionaries(v1: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'run'}",)

    path = v1 / "token_dictionary.pkl"
    values = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({**values, "<mask>": Hostile()}))
    refuse(v1, r"token_dictionary\.pkl is a pickle that asks for .*system.*token_dictionary=")
    refuse(v1, r"asks for .*system", token_dictionary=path)
    refuse(v1, r"asks for .*system", gene_names=path, token_dictionary=path)
    assert not (tmp_path / "run").exists()


def test_files_that_are_not_the_files(v1: Path) -> None:
    weights = (v1 / "model.safetensors").read_bytes()
    (v1 / "model.safetensors").write_bytes(LFS)
    refuse(v1, r"model\.safetensors is a pointer of Git LFS.*git lfs pull")
    (v1 / "model.safetensors").write_bytes(b"\x80\x04}.")
    refuse(v1, "not a safetensors file: .*can run code")
    (v1 / "model.safetensors").unlink()
    (v1 / "pytorch_model.bin").write_bytes(weights)
    refuse(v1, r"pytorch_model\.bin, a Python pickle, .*convert it with transformers")
    (v1 / "pytorch_model.bin").rename(v1 / "model.safetensors")
    (v1 / "gene_median_dictionary.pkl").write_bytes(LFS)
    refuse(v1, r"gene_median_dictionary\.pkl is a pointer of Git LFS")
    (v1 / "gene_median_dictionary.pkl").write_bytes(bytes(2**25 + 1))
    refuse(v1, "has 33,554,433 bytes, expected 1 to 33,554,432")


def test_folders_that_are_wrong(v1: Path, tmp_path: Path) -> None:
    refuse(tmp_path / "missing", "does not exist")
    refuse(v1, "the folder that is imported", InputError, out="v1", overwrite=True)
    import_geneformer(v1, tmp_path / "out")
    refuse(v1, "exists. Pass overwrite=True", InputError)
    refuse(tmp_path / "out", "is a checkpoint of scmix already", InputError, out="again")
    import_geneformer(v1, tmp_path / "out", overwrite=True)
    (tmp_path / "out" / "mine.txt").touch()
    refuse(v1, r"holds 'mine\.txt'", InputError, overwrite=True)


def rewrite(path: Path, change: Callable[[dict], dict]) -> None:
    path.write_bytes(pickle.dumps(change(pickle.loads(path.read_bytes()))))


def test_dictionaries_that_do_not_fit(v1: Path, tmp_path: Path) -> None:
    tokens, medians = v1 / "token_dictionary.pkl", v1 / "gene_median_dictionary.pkl"
    shutil.copytree(v1, tmp_path / "good")
    small = tmp_path / "small.pkl"
    small.write_bytes(tokens.read_bytes())
    rewrite(small, lambda values: dict(list(values.items())[:-1]))
    refuse(v1, "vocab_size 32, but it is 31 in", IncompatibleModelError, token_dictionary=small)
    small.rename(tokens)
    refuse(v1, "has 31 entries.*expected a token dictionary of 32", IncompatibleModelError)
    tokens.unlink()
    refuse(v1, r"no file named \*token_dictionary\*", IncompatibleModelError)
    shutil.copy(tmp_path / "good" / tokens.name, tokens)

    for change, message in [
        (lambda v: v | {"<mask>": v["<pad>"]}, "without gaps and repeats"),
        (lambda v: v | {"<mask>": 99}, "without gaps and repeats"),
        (lambda v: v | {"<mask>": 1.5}, "expected a whole number"),
        (lambda v: {{"<mask>": "<m>"}.get(k, k): x for k, x in v.items()}, "has no <mask>"),
        (lambda v: {k: len(v) - 1 - x for k, x in v.items()}, "pad_token_id 0, but it is 31 in"),
    ]:
        shutil.copy(tmp_path / "good" / tokens.name, tokens)
        rewrite(tokens, change)
        refuse(v1, message, token_dictionary=tokens)
    shutil.copy(tmp_path / "good" / tokens.name, tokens)

    one = next(iter(pickle.loads(medians.read_bytes())))
    rewrite(medians, lambda values: values | {one: np.float64(0)})
    refuse(v1, "the median '0.0'; expected a number above zero")
    rewrite(medians, lambda values: {k: v for k, v in values.items() if k != one})
    refuse(v1, "has 29 entries.*medians of exactly the 30 genes", IncompatibleModelError)
    rewrite(medians, lambda values: {f"x{k}": v for k, v in values.items()})
    refuse(v1, "no Ensembl gene id with a median", IncompatibleModelError, gene_median=medians)
    refuse(v1, "expected a dictionary as", InputError, token_dictionary=v1 / "config.yaml")


def test_two_dictionaries_that_fit(v1: Path, tmp_path: Path) -> None:
    path = v1 / "token_dictionary.pkl"
    shutil.copy(path, v1 / "token_dictionary_copy.pkl")
    import_geneformer(v1, tmp_path / "first")
    rewrite(path, lambda values: dict(zip(values, [0, 1, *range(31, 1, -1)], strict=True)))
    refuse(v1, "which differ and both fit. Name the one", InputError)
    import_geneformer(v1, tmp_path / "named", token_dictionary=path)


def test_names_that_cannot_be_read(v1: Path, tmp_path: Path) -> None:
    path = v1 / "gene_name_id_dict.pkl"
    path.write_bytes(LFS)
    with pytest.warns(UserWarning, match="Names of genes were left out: .*Git LFS") as said:
        model = import_geneformer(v1, tmp_path / "out")
    assert said[0].filename == __file__
    assert path.name not in model.manifest["recipe"]["files"]
    refuse(v1, "Git LFS", gene_names=path, overwrite=True)
    path.write_bytes(pickle.dumps({"": genes("human", 1)[0], "\x07": "ENSG1", "A": "ENSG2"}))
    import_geneformer(v1, tmp_path / "again")


def test_an_untied_decoder(v1: Path) -> None:
    tensors = load_file(v1 / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = (
        tensors["bert.embeddings.word_embeddings.weight"] + 1
    )
    save_file(tensors, v1 / "model.safetensors")
    refuse(v1, f"{v1}: cls.*decoder.* computes tied weights only", IncompatibleModelError)
    tensors["bert.embeddings.LayerNorm.weight"][0] = float("nan")
    save_file(tensors, v1 / "model.safetensors")
    refuse(v1, "NaN or infinite numbers in bert.embeddings.LayerNorm.weight")
    tensors["surprise"] = torch.ones(1)
    save_file(tensors, v1 / "model.safetensors")
    refuse(v1, r"1 \(surprise\) unexpected")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "expected a model of the Geneformer family"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "asks for code of its own"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_size": 32}, "expected F32"),
        ({"num_hidden_layers": 3}, "16 .* missing"),
    ],
)
def test_configurations_that_are_refused(v1: Path, change: dict, message: str) -> None:
    content = json.loads((v1 / "config.json").read_text()) | change
    (v1 / "config.json").write_text(json.dumps(content))
    refuse(v1, message.replace("F32", "F32 or F16"))


# -- the published dictionaries and code -----------------------------------------------------------


def published_dictionaries(scmix_data: Path, name: str, folder: Path) -> dict[str, dict]:
    table = pd.read_csv(scmix_data / "genes" / f"geneformer_gc{name}_vocabulary.csv.gz")
    known = table[table["median"].notna()]
    content = {
        "token_dictionary": dict(zip(table.gene_id, map(np.int16, table.token), strict=True)),
        "gene_median_dictionary": dict(
            zip(known.gene_id, map(np.float64, known["median"]), strict=True)
        ),
    }
    write_dictionaries(folder, f"_gc{name}", content)
    write_bert(folder, len(table), hidden_size=2, intermediate_size=2, num_hidden_layers=1)
    return content


@pytest.mark.parametrize(("name", "n"), [("30M", 25_426), ("95M", 20_275)])
def test_published_dictionaries(scmix_data: Path, tmp_path: Path, name: str, n: int) -> None:
    content = published_dictionaries(scmix_data, name, tmp_path / "in")
    vocabulary = import_geneformer(tmp_path / "in", tmp_path / "out").vocabulary
    table = vocabulary.genes.set_index("ensembl_id")
    assert vocabulary.n_tokens == n
    assert {**table.token.to_dict(), **vocabulary.special} == content["token_dictionary"]
    assert table["median"].to_dict() == content["gene_median_dictionary"]
    if name == "30M":
        check_published_sequences(scmix_data / "reference" / "tokens", vocabulary)


def check_published_sequences(folder: Path, vocabulary: Vocabulary) -> None:
    """The same tokens in every cell; in the same order but where scores are exactly equal."""
    adata = ad.read_h5ad(folder / "input.h5ad")
    adata = adata[adata.obs["filter_pass"] == 1].copy()
    blocks = _slots.iter_sequences(adata, vocabulary, species="human", gene_ids="ensembl_id")
    cells = [cell for block in blocks for cell in block.sequences]
    stored = np.load(folder / "expected_geneformer_v1.npz")
    expected = Sequences(stored["tokens"], stored["indptr"])
    names = vocabulary.token_names()
    column = {gene: i for i, gene in enumerate(adata.var["ensembl_id"])}
    ids = vocabulary.genes.set_index("token").ensembl_id
    assert len(names) == vocabulary.n_tokens
    for row, ours, theirs in zip(adata.X.toarray(), cells, expected, strict=True):
        scores = [
            [row[column[ids[t]]].astype(float) / vocabulary.medians[0, t] for t in cell]
            for cell in (ours.tolist(), theirs.tolist())
        ]
        assert scores[0] == scores[1]
        differ = np.flatnonzero(ours != theirs)
        tied = [i for i in differ if scores[0].count(scores[0][i]) > 1]
        assert len(ours) == 2048 or len(tied) == len(differ)


def test_published_embeddings(scmix_data: Path, tmp_path: Path) -> None:
    folder = scmix_data / "reference" / "perturbation"
    tokens = json.loads((folder / "tok1.json").read_text())
    medians = {name: 1.0 for name in tokens if name.startswith("ENSG")}
    (tmp_path / "median.json").write_text(json.dumps(medians))
    model = import_geneformer(
        folder / "model_v1style",
        tmp_path / "out",
        token_dictionary=folder / "tok1.json",
        gene_median=tmp_path / "median.json",
    )
    data = json.loads((folder / "d1.json").read_text())
    found = run(
        model.encoder,
        Sequences.from_list(data["input_ids"]),
        special_ids=model.vocabulary.special_ids,
        layer=-2,
        dtype="float32",
    )
    table = pd.read_csv(folder / "emb_cell_V1_layer-1.csv", index_col=0)
    expected = table.set_index("cid").loc[data["cid"]].to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
