"""The two objectives with a value decoder: their losses against loops, and what they learn."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import Ridge

from scmix.decoders import Profiles, predict
from scmix.decoders._log_values import log_values
from scmix.pretrain import build_corpus, recipe
from scmix.pretrain._start import first_values
from scmix.pretrain.model import make_model
from scmix.pretrain.stream import Stream

NAMES = ("value_autoencoder", "restore")
PANEL = np.arange(0, 60, 2)  # genes that the second file has
ABSENT = np.arange(1, 60, 2)
TINY = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 48,
    "hidden_dropout_prob": 0.0,
    "max_length": 64,
    "length_multiple": 1,
    "tokens_per_step": 1500,
    "value_decoder_width": 16,
    "value_decoder_layers": 1,
    "value_decoder_heads": 2,
    "value_bins": 20,
    "restore_genes": (30, 60),
    "hide_zero": 0.3,
    "init": "random",
    "precision": "fp32",
}


def module_counts(n_cells, seed):
    """One of four modules is strong (genes 0-14, 15-29, ...), in cells of different depth."""
    rng = np.random.default_rng(seed)
    mine = rng.integers(4, size=n_cells)[:, None] == np.arange(60)[None] // 15
    depth = rng.uniform(0.5, 2, (n_cells, 1))
    return rng.poisson(depth * np.where(mine, 12.0, 0.4)).astype(np.float32)


def write(path, counts, genes):
    names = [f"ENSG{i + 1:011d}" for i in genes]
    obs = pd.DataFrame(index=[f"{path.stem}{i}" for i in range(len(counts))])
    adata = ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=names))
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, vocabulary):
    folder = tmp_path_factory.mktemp("modules")
    files = [
        write(folder / "whole.h5ad", module_counts(300, 1), np.arange(60)),
        write(folder / "panel.h5ad", module_counts(60, 2)[:, PANEL], PANEL),
    ]
    options = {"vocabulary": vocabulary, "min_genes": 3, "n_genes": None, "values": True}
    return build_corpus(files, folder / "corpus", **options)


def settled(name, **changes):
    return recipe("value-mini", objectives={name: 1.0}, **{**TINY, **changes})


def model_of(corpus, settings, wild=False):
    model = make_model(corpus.vocabulary, settings)
    for objective in model.objectives.values():
        objective.start(corpus)
    if wild:
        generator = torch.Generator().manual_seed(0)
        for parameter in model.objectives.parameters():
            parameter.data.normal_(0.0, 0.3, generator=generator)
    return model.eval()


def batch_of(corpus, settings, number=0):
    return Stream(corpus, settings, settings.views).batch(number)


def naive_prediction(model, decoder, view, i, code):
    """Hidden genes of one cell of the batch, that cell alone."""
    row = int(view["place"][i])
    where = slice(*view["indptr"][row : row + 2])
    tokens, values, keep = (view[name][where] for name in ("tokens", "values", "keep"))
    depth = view["depth"][[i]].expand(len(tokens), -1)
    added = decoder.added(values, keep, depth)
    hidden = model.encoder(tokens, [0, len(tokens)], added=added)
    words = model.encoder.bert.embeddings.word_embeddings
    asked = slice(*view["hidden"]["indptr"][i : i + 2])
    genes = view["hidden"]["tokens"][asked]
    memories, real = decoder.remember(hidden, [0, len(tokens)])
    z = decoder.decode(words(genes)[None], memories, real)[0]
    found = decoder.mean[code, genes] + decoder.scale[code, genes] * z
    return found, view["hidden"]["values"][asked], decoder.scale[code, genes]


@torch.no_grad()
@pytest.mark.parametrize("zero_weight", [1.0, 4.0])
def test_value_autoencoder_equals_a_loop_over_cells(corpus, zero_weight):
    settings = settled(
        "value_autoencoder",
        value_autoencoder_zero_weight=zero_weight,
        value_autoencoder_thinning=0.5,
    )
    model, batch = model_of(corpus, settings, wild=True), batch_of(corpus, settings)
    view, decoder = batch["views"]["visible"], model.objectives["value_autoencoder"].decoder
    total = weight = 0.0
    cells, expressed = [], []
    for i, code in enumerate(batch["species"]):
        found, truth, _ = naive_prediction(model, decoder, view, i, code)
        errors = (found - truth) ** 2
        weights = torch.where(truth > 0, 1.0, zero_weight)
        total, weight = total + (weights * errors).sum(), weight + weights.sum()
        cells.append(errors.mean())
        expressed.append(errors[truth > 0])
    objective = model.objectives["value_autoencoder"]
    hidden = {"visible": model.encode("visible", view)}
    loss, metrics = objective.loss(model.encoder, hidden, batch)
    torch.testing.assert_close(loss, total / weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(metrics["cells"], torch.stack(cells), rtol=1e-4, atol=1e-5)
    found = metrics["value_autoencoder_expressed"]
    torch.testing.assert_close(found, torch.cat(expressed).mean(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_restore_equals_a_loop_over_cells(corpus):
    settings = settled("restore")
    model, batch = model_of(corpus, settings, wild=True), batch_of(corpus, settings)
    view, objective = batch["views"]["panel"], model.objectives["restore"]
    errors = []
    for i, code in enumerate(batch["species"]):
        found, truth, scale = naive_prediction(model, objective.decoder, view, i, code)
        errors.append(((found - truth) / scale) ** 2)
    hidden = {"panel": model.encode("panel", view)}
    loss, metrics = objective.loss(model.encoder, hidden, batch)
    torch.testing.assert_close(loss, torch.cat(errors).mean(), rtol=1e-4, atol=1e-6)
    expected = torch.stack([e.mean() for e in errors])
    torch.testing.assert_close(metrics["cells"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_before_training_the_mean_of_every_gene_is_predicted(corpus, name):
    settings = settled(name)
    model, batch = model_of(corpus, settings), batch_of(corpus, settings)
    decoder = model.objectives[name].decoder
    view = batch["views"][settings.views[0]]
    n_asked = torch.tensor(view["hidden"]["indptr"]).diff()
    rows, tokens = batch["species"].repeat_interleave(n_asked), view["hidden"]["tokens"]
    with torch.no_grad():
        found = model(batch)["metrics"]
    errors = (decoder.mean[rows, tokens] - view["hidden"]["values"]).square()
    if name == "restore":
        errors = errors / decoder.scale[rows, tokens].square()
        assert 0.7 < found["restore"] < 1.3, "in standard deviations"
    expected = errors[view["hidden"]["values"] > 0].mean().item()
    assert found[f"{name}_expressed"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_hidden_is_not_seen(corpus, name):
    settings = settled(name)
    model, batch = model_of(corpus, settings, wild=True), batch_of(corpus, settings)
    view = batch["views"][settings.views[0]]
    hidden = {settings.views[0]: model.encode(settings.views[0], view)}
    objective = model.objectives[name]
    with torch.no_grad():
        before, _, _ = objective.predict(model.encoder, hidden, batch)
        view["hidden"]["values"] = view["hidden"]["values"] + 1
        after, _, _ = objective.predict(model.encoder, hidden, batch)
    assert torch.equal(before, after)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_everything(corpus, name):
    settings = settled(name, value_autoencoder_thinning=0.5)
    model, batch = model_of(corpus, settings, wild=True), batch_of(corpus, settings)
    model.train()
    model(batch)["loss"].backward()
    unmoved = [
        key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert all(key.startswith("encoder.cls") for key in unmoved)
    assert unmoved, "the head of the language model has no part in it"


def test_values_are_left_out_of_some_cells_in_training(corpus):
    settings = settled("value_autoencoder", value_dropout=0.5)
    model, batch = model_of(corpus, settings), batch_of(corpus, settings)
    objective, view = model.objectives["value_autoencoder"], batch["views"]["visible"]
    everywhere = objective.added(view)
    objective.train()
    torch.manual_seed(0)
    some = objective.added(view)
    lengths = torch.tensor(view["indptr"]).diff().tolist()
    with_values = [bool(part.abs().sum() > 0) for part in some.split(lengths)]
    assert 0.2 < np.mean(with_values) < 0.8
    for one, other, kept in zip(
        some.split(lengths), everywhere.split(lengths), with_values, strict=True
    ):
        assert not kept or torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_whole_cells_are_read_with_their_values(corpus, name):
    settings = settled(name, value_autoencoder_thinning=0.5)
    model = model_of(corpus, settings, wild=True)
    batch = Stream(corpus, settings, [*settings.views, "full"]).batch(0)
    view = batch["views"]["full"]
    with torch.no_grad():
        hidden = model.encode("full", view)
        doubled = model.encode("full", {**view, "values": 2 * view["values"]})
    assert hidden.shape == (len(view["tokens"]), TINY["hidden_size"])
    assert not torch.allclose(hidden, doubled)


def trained(corpus, settings, n_steps):
    model = make_model(corpus.vocabulary, settings).train()
    first_values(model, corpus, settings, None)
    stream = Stream(corpus, settings, settings.views)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(n_steps):
        optimiser.zero_grad()
        model(stream.batch(step))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


def programme_counts(n_cells, seed, *, genes=7):
    """Every gene belongs to one of five programmes at random, and cells mix programmes.

    Nothing about the decoder, its start or its recipe was chosen on these data (their like with
    other seeds served to see how many steps it takes).
    """
    chosen = np.random.default_rng(genes)
    programme, strength = chosen.integers(5, size=60), chosen.uniform(4, 16, 60)
    rng = np.random.default_rng(seed)
    activity = rng.dirichlet(np.full(5, 0.3), n_cells)
    depth = rng.uniform(0.5, 2, (n_cells, 1))
    rates = depth * (0.3 + strength * activity[:, programme])
    return rng.poisson(rates).astype(np.float32)


def on_the_panel(counts):
    """Values of the panel's genes and of the others, as parts of what the panel counts."""
    totals = np.maximum(counts[:, PANEL].sum(1), 1)[:, None]
    return log_values(counts[:, PANEL], totals), log_values(counts[:, ABSENT], totals)


def restored(model, name, vocabulary, counts):
    """The genes that are not on the panel, as the model expects them."""
    columns = np.array([vocabulary.genes["token"][i] for i in range(60)])
    known = np.zeros((len(counts), vocabulary.n_tokens), np.float32)
    known[:, columns[PANEL]] = counts[:, PANEL]
    species, totals = np.zeros(len(counts), np.int8), known.sum(1).astype(np.float64)
    cells = Profiles.of(sp.csr_matrix(known), vocabulary.medians, species, totals)
    measured = np.zeros((2, vocabulary.n_tokens), bool)
    measured[0, columns[PANEL]] = True
    return predict(
        model.encoder, model.objectives[name].decoder, vocabulary, cells, columns[ABSENT],
        measured=measured, device="cpu", dtype="float32",
    )  # fmt: skip


def median_correlation(found, truth):
    """Over genes; a gene predicted alike in all cells has none, which counts as zero."""
    a, b = found - found.mean(0), truth - truth.mean(0)
    size = np.sqrt(np.square(a).sum(0) * np.square(b).sum(0))
    return np.median(np.where(size > 1e-6, (a * b).sum(0) / np.maximum(size, 1e-6), 0))


@pytest.fixture(scope="module")
def programmes(tmp_path_factory, vocabulary):
    folder = tmp_path_factory.mktemp("programmes")
    files = [
        write(folder / "whole.h5ad", programme_counts(300, 1), np.arange(60)),
        write(folder / "panel.h5ad", programme_counts(60, 2)[:, PANEL], PANEL),
    ]
    options = {"vocabulary": vocabulary, "min_genes": 3, "n_genes": None, "values": True}
    return build_corpus(files, folder / "corpus", **options)


@pytest.mark.parametrize("name", NAMES)
def test_genes_that_a_panel_lacks_are_restored_nearly_as_by_ridge(programmes, vocabulary, name):
    """Ridge is fitted to the training cells for this very panel; the model knows no panel."""
    changes = {"init": "coexpression", "tokens_per_step": 700, "value_decoder_width": 32}
    changes |= {"value_autoencoder_zero_weight": 1.0, "value_dropout": 0.0}
    cells = programme_counts(200, 3)
    shown, truth = on_the_panel(cells)
    ridge = Ridge(10.0).fit(*on_the_panel(programme_counts(300, 1))).predict(shown)
    by_ridge = median_correlation(ridge, truth)
    assert by_ridge > 0.5, "there is something to find"

    def is_restored(n_steps):
        model = trained(programmes, settled(name, **changes), n_steps)
        found = restored(model, name, vocabulary, cells)
        better_than_mean = np.mean((found - truth) ** 2) < truth.var(0).mean()
        return better_than_mean and median_correlation(found, truth) > 0.75 * by_ridge

    assert is_restored(140)
    assert not is_restored(0)
