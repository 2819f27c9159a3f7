"""Whole-cell decoders against double loops over cells and genes, and whether they learn."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scmix._errors import InputError
from scmix.pretrain import build_corpus, recipe
from scmix.pretrain.model import make_model
from scmix.pretrain.objectives._pooling import pooled
from scmix.pretrain.objectives._through_linear import through_linear
from scmix.pretrain.objectives.poisson import poisson_loss, rectified_tanh
from scmix.pretrain.stream import Stream

TINY = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_length": 64,
    "tokens_per_step": 400,
    "hidden_dropout_prob": 0.0,
    "precision": "fp32",
    "subset_share": (0.3, 0.7),
}


@pytest.fixture(scope="module")
def whole(files, vocabulary, tmp_path_factory):
    """A corpus with all genes and their counts."""
    out = tmp_path_factory.mktemp("whole") / "corpus"
    options = {"vocabulary": vocabulary, "min_genes": 5, "n_genes": None, "values": True}
    return build_corpus(files, out, **options)


def run(corpus, name, **changes):
    settings = recipe("mix-geneformer-x", objectives={name: 1.0}, **{**TINY, **changes})
    model = make_model(corpus.vocabulary, settings).train()
    batch = Stream(corpus, settings, model.views).batch(0)
    return model, batch, model(batch)


def vectors_of(model, batch):
    view = batch["views"]["part"]
    return pooled(model.encoder, model.encode("part", view), view, "mean")


def truth_of(corpus, batch, total):
    """Scaled counts and measured genes, cell by cell."""
    counts = np.zeros((len(batch["rows"]), corpus.vocabulary.n_tokens))
    for i, row in enumerate(batch["rows"]):
        counts[i, corpus.sequences([row])[0]] = corpus.counts([row]) / corpus.totals[row] * total
    measured = np.stack([corpus.measured_genes[corpus.group([row])[0]] for row in batch["rows"]])
    return counts, measured


def seen_genes(corpus, batch):
    seen = np.zeros((len(batch["rows"]), corpus.vocabulary.n_tokens), bool)
    view = batch["views"]["part"]
    cells = np.split(view["tokens"].numpy(), view["indptr"][1:-1])
    for i, place in enumerate(view["place"].tolist()):
        seen[i, cells[place]] = True
    seen[:, corpus.vocabulary.special_ids] = False
    return seen


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_losses_behind_a_wide_layer_equal_those_of_all_outputs(chunk):
    torch.manual_seed(0)
    inputs = [torch.randn(*shape).requires_grad_() for shape in [(10, 4), (7, 4), (7,)]]
    target = torch.randn(10, 7)
    full = (torch.tanh(F.linear(*inputs)) - target).square().sum()
    expected = torch.autograd.grad(3 * full, inputs)

    def loss_of(outputs, start, stop):
        return (torch.tanh(outputs) - target[start:stop]).square().sum(1)

    loss = through_linear(*inputs, loss_of, chunk)
    found = torch.autograd.grad(3 * loss, inputs)
    assert loss.item() == pytest.approx(full.item(), rel=1e-6)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        assert through_linear(*inputs, loss_of, chunk).item() == loss.item()


@pytest.mark.parametrize("sets", ["all", "split"])
def test_wced_is_its_formula(whole, sets):
    model, batch, out = run(whole, "wced", wced_sets=sets)
    objective = model.objectives["wced"]
    torch.nn.init.normal_(objective.head.bias)
    out = model(batch)
    counts, measured = truth_of(whole, batch, 1e4)
    seen = seen_genes(whole, batch)
    with torch.no_grad():
        value, absent = objective.head(vectors_of(model, batch)).chunk(2, 1)
    squared, absence = {True: [], False: []}, {True: [], False: []}
    for i, j in zip(*np.nonzero(measured), strict=True):
        group = sets == "split" and bool(seen[i, j])
        zero = counts[i, j] == 0
        chance = 1 / (1 + math.exp(-absent[i, j]))
        absence[group].append(-math.log(chance if zero else 1 - chance))
        if not zero:
            squared[group].append((value[i, j].item() - math.log1p(counts[i, j])) ** 2)
    mse = sum(np.mean(errors) for errors in squared.values() if errors)
    bce = sum(np.mean(errors) for errors in absence.values() if errors)
    assert out["metrics"]["wced_mse"].item() == pytest.approx(mse, rel=1e-4)
    assert out["metrics"]["wced_bce"].item() == pytest.approx(bce, rel=1e-4)
    assert out["loss"].item() == pytest.approx(mse + bce, rel=1e-4)


def test_poisson_is_its_formula(whole):
    model, batch, out = run(whole, "poisson", value_total=1e5)
    counts, measured = truth_of(whole, batch, 1e5)
    with torch.no_grad():
        predicted = model.objectives["poisson"].predict(vectors_of(model, batch)).numpy()
    losses, smallest = [], []
    for i, j in zip(*np.nonzero(measured), strict=True):
        x = math.log1p(counts[i, j])
        losses.append(math.exp(predicted[i, j]) - predicted[i, j] * math.exp(x))
        smallest.append(math.exp(x) - x * math.exp(x))
    assert out["loss"].item() == pytest.approx(np.mean(losses), rel=1e-4)
    excess = np.mean(losses) - np.mean(smallest)
    assert excess > 0
    assert out["metrics"]["poisson_excess"].item() == pytest.approx(excess, rel=1e-3)


def test_identities_of_txfm():
    z = torch.linspace(-40, 40, 999, dtype=torch.float64)
    published = math.log1p(1e5) * torch.relu(2 * torch.sigmoid(z / (2 * math.e)) - 1)
    torch.testing.assert_close(rectified_tanh(z, 1e5), published)
    assert (rectified_tanh(z, 1e5)[z <= 0] == 0).all()
    assert rectified_tanh(z, 1e5).max() <= math.log1p(1e5)
    # smallest where the log-rate is log1p of the count; the Poisson likelihood of 1 + y
    count = torch.tensor([0.0, 3.0, 500.0], dtype=torch.float64)
    best = torch.log1p(count).requires_grad_()
    (slope,) = torch.autograd.grad(poisson_loss(best, 1 + count).sum(), best)
    torch.testing.assert_close(slope, torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    likelihood = torch.distributions.Poisson(torch.tensor(7.0)).log_prob(torch.tensor(4.0))
    expected = -likelihood.item() - math.lgamma(5)
    rate = torch.tensor(7.0).log()
    assert poisson_loss(rate, torch.tensor(4.0)).item() == pytest.approx(expected, rel=1e-6)


def test_a_flat_output_is_lifted_and_never_pushed_lower():
    z = torch.tensor([-2.0, -2.0, 2.0], requires_grad=True)
    (slope,) = torch.autograd.grad(rectified_tanh(z, 1e5), z, torch.tensor([-1.0, 1.0, 1.0]))
    assert slope[0] < 0
    assert slope[1] == 0
    assert slope[2] > 0


@pytest.mark.parametrize("name", ["wced", "poisson"])
def test_the_prediction_depends_on_the_pooled_vector_of_visible_genes_only(whole, name):
    model, batch, _ = run(whole, name)
    other = {**batch, "profile": {**batch["profile"]}}
    other["profile"]["counts"] = batch["profile"]["counts"] * 2
    objective = model.objectives[name]
    with torch.no_grad():
        torch.testing.assert_close(
            objective.predict(vectors_of(model, other)), objective.predict(vectors_of(model, batch))
        )
    hidden = {"part": model.encode("part", batch["views"]["part"]).requires_grad_()}
    loss, _ = objective.loss(model.encoder, hidden, batch)
    (slope,) = torch.autograd.grad(loss, hidden["part"])
    special = ~batch["views"]["part"]["keep"]
    assert special.any()
    assert (slope[special] == 0).all()
    assert (slope[~special].abs().sum(1) > 0).all()


@pytest.mark.parametrize("name", ["wced", "poisson"])
def test_genes_that_were_not_measured_get_no_gradient(whole, name):
    model, batch, out = run(whole, name)
    out["loss"].backward()
    slope = model.objectives[name].head.weight.grad.unflatten(0, (-1, whole.vocabulary.n_tokens))
    measured = batch["profile"]["measured"].any(0)
    assert (~measured).any()
    assert (slope[:, ~measured] == 0).all()
    assert (slope[:, measured].abs().sum((0, 2)) > 0).all()


def test_cls_is_refused_where_the_vocabulary_has_none(vocabulary):
    settings = recipe("mix-geneformer-x", objectives={"wced": 1.0}, wced_pool="cls")
    with pytest.raises(InputError, match=r'no <cls> token\. Pass wced_pool="mean"'):
        make_model(vocabulary, settings)


def test_a_corpus_without_counts_is_refused(corpus):
    settings = recipe("mix-geneformer-x", objectives={"wced": 1.0})
    with pytest.raises(InputError, match=r"values=True, n_genes=None"):
        Stream(corpus, settings, settings.views)


def test_a_corpus_that_cuts_cells_is_refused(files, vocabulary, tmp_path):
    options = {"vocabulary": vocabulary, "min_genes": 5, "n_genes": 8, "values": True}
    short = build_corpus(files, tmp_path / "short", **options)
    settings = recipe("mix-geneformer-x", objectives={"poisson": 1.0})
    with pytest.raises(InputError, match="keeps 8 genes"):
        Stream(short, settings, settings.views)


def learn(corpus, name, steps=60, **changes):
    small = {**TINY, "num_hidden_layers": 1, "intermediate_size": 32, "tokens_per_step": 300}
    settings = recipe("mix-geneformer-x", objectives={name: 1.0}, **{**small, **changes})
    model = make_model(corpus.vocabulary, settings).train()
    model.start(corpus)
    stream = Stream(corpus, settings, model.views)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        loss = model(stream.batch(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), stream.batch(10**6)


def wced_of_gene_means(corpus, batch):
    """Both parts of the loss for somebody who knows the means of the batch's genes by species."""
    counts, measured = truth_of(corpus, batch, 1e4)
    squared, absence = [], []
    for code in (0, 1):
        mine = batch["species"].numpy() == code
        x, known = np.log1p(counts[mine]), measured[mine]
        expressed = x > 0
        means = x.sum(0) / np.maximum(expressed.sum(0), 1)
        zeros = np.clip((known & ~expressed).mean(0), 1e-6, 1 - 1e-6)
        squared.append(np.square(x - means)[expressed])
        absence.append(-np.where(expressed, np.log(1 - zeros), np.log(zeros))[known])
    return np.concatenate(squared).mean(), np.concatenate(absence).mean()


def poisson_of_gene_means(corpus, batch):
    counts, measured = truth_of(corpus, batch, 1e5)
    losses = 1 + counts
    for code in (0, 1):
        mine = batch["species"].numpy() == code
        rate = np.log(losses[mine].mean(0))
        losses[mine] = np.exp(rate) - rate * losses[mine]
    return losses[measured].mean()


def test_wced_learns_more_than_gene_means(whole):
    model, batch = learn(whole, "wced")
    mse, bce = wced_of_gene_means(whole, batch)
    with torch.no_grad():
        metrics = model(batch)["metrics"]
    assert metrics["wced_mse"] < 0.3 * mse
    assert metrics["wced_bce"] < 0.6 * bce


def test_poisson_learns_more_than_gene_means_and_no_gene_dies(whole):
    model, batch = learn(whole, "poisson", value_total=1e5)
    counts, measured = truth_of(whole, batch, 1e5)
    with torch.no_grad():
        metrics = model(batch)["metrics"]
        predicted = model.objectives["poisson"].predict(vectors_of(model, batch)).numpy()
    means = poisson_of_gene_means(whole, batch)
    smallest = metrics["poisson"] - metrics["poisson_excess"]
    assert metrics["poisson_excess"] < 0.2 * (means - smallest)
    expressed = (counts > 0).any(0)
    assert ((predicted > 0) & measured).any(0)[expressed].all()


def test_decoders_start_at_the_means_of_genes(whole):
    for name, expected in (("wced", wced_of_gene_means), ("poisson", poisson_of_gene_means)):
        model, batch = learn(whole, name, steps=0, value_total=1e4 if name == "wced" else 1e5)
        with torch.no_grad():
            found = model(batch)["metrics"]
        means = np.sum(expected(whole, batch))
        # species share the start where they share tokens, and a batch has means of its own
        assert found[name].item() == pytest.approx(means, rel=0.25)
