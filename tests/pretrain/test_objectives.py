"""Losses against plain implementations of their formulas."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scmix import metrics
from scmix.pretrain import build_corpus, recipe
from scmix.pretrain.model import make_model
from scmix.pretrain.objectives._pooling import pooled
from scmix.pretrain.objectives.mlm import linear_cross_entropy
from scmix.pretrain.objectives.simcse import nt_xent
from scmix.pretrain.objectives.xspecies import info_nce
from scmix.pretrain.stream import Stream

TINY = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_length": 32,
    "tokens_per_step": 400,
    "precision": "fp32",
}


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunked_cross_entropy_equals_that_of_full_logits(chunk):
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(30, 8), torch.randn(50, 8), torch.randn(50)
    labels = torch.randint(50, (30,))
    inputs = [x.requires_grad_() for x in (rows, weight, bias)]
    full = F.cross_entropy(F.linear(*inputs), labels)
    expected = torch.autograd.grad(3 * full, inputs)
    loss, accuracy, losses = linear_cross_entropy(*inputs, labels, chunk)
    each = F.cross_entropy(F.linear(*inputs), labels, reduction="none")
    torch.testing.assert_close(losses, each.detach())
    found = torch.autograd.grad(3 * loss, inputs)
    assert loss.item() == pytest.approx(full.item(), rel=1e-6)
    assert accuracy.item() == (F.linear(*inputs).argmax(1) == labels).float().mean().item()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_chunked_cross_entropy_follows_autocast():
    torch.manual_seed(1)
    rows, weight, bias = torch.randn(40, 64), torch.randn(90, 64) / 8, torch.zeros(90)
    labels = torch.randint(90, (40,))
    exact, *_ = linear_cross_entropy(rows, weight, bias, labels)
    with torch.autocast("cpu", torch.bfloat16):
        low, *_ = linear_cross_entropy(rows, weight, bias, labels)
    assert low.item() != exact.item()
    assert low.item() == pytest.approx(exact.item(), rel=0.01)
    assert low.dtype == torch.float32


def naive_nt_xent(one, two, temperature, groups):
    z = [*one, *two]
    n, losses = len(one), []
    group = [*groups, *groups]
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        total = sum(
            math.exp(F.cosine_similarity(z[i], z[j], dim=0) / temperature)
            for j in range(2 * n)
            if j != i and group[j] == group[i]
        )
        wanted = F.cosine_similarity(z[i], z[partner], dim=0).item() / temperature
        losses.append(math.log(total) - wanted)
    return np.mean(losses)


@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 1, 2]])
def test_nt_xent_equals_a_double_loop(groups):
    torch.manual_seed(2)
    one, two = torch.randn(6, 5), torch.randn(6, 5)
    expected = naive_nt_xent(one, two, 0.2, groups or [0] * 6)
    loss, _ = nt_xent(one, two, 0.2, None if groups is None else torch.tensor(groups))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_info_nce_equals_a_double_loop():
    torch.manual_seed(3)
    one, two = torch.randn(5, 4), torch.randn(5, 4)
    s = [[math.exp(F.cosine_similarity(a, b, dim=0) / 0.1) for b in two] for a in one]
    there = [-math.log(s[i][i] / sum(s[i])) for i in range(5)]
    back = [-math.log(s[i][i] / sum(row[i] for row in s)) for i in range(5)]
    loss, _ = info_nce(one, two, 0.1)
    assert loss.item() == pytest.approx((np.mean(there) + np.mean(back)) / 2, rel=1e-5)


def test_equal_views_are_found(corpus):
    torch.manual_seed(4)
    one = torch.randn(8, 16)
    assert nt_xent(one, one, 0.05)[1] == 1
    assert nt_xent(one, one.roll(1, 0), 0.05)[1] == 0


def run(corpus, objectives, **changes):
    settings = recipe("mix-geneformer-x", objectives=objectives, **{**TINY, **changes})
    model = make_model(corpus.vocabulary, settings).train()
    batch = Stream(corpus, settings, model.views).batch(0)
    return model, batch, model(batch)


def test_mlm_is_the_cross_entropy_of_the_encoders_logits(corpus):
    model, batch, out = run(corpus, {"mlm": 1.0}, hidden_dropout_prob=0.0)
    view, targets = batch["views"]["masked"], batch["targets"]
    hidden = model.encoder(view["tokens"], view["indptr"])
    logits = model.encoder.logits(hidden[targets["positions"]])
    expected = F.cross_entropy(logits, targets["labels"])
    torch.testing.assert_close(out["loss"], expected)
    torch.testing.assert_close(out["metrics"]["mlm"], expected.detach())


def test_weights_scale_losses_and_not_metrics(corpus):
    weights = {"mlm": 0.5, "simcse": 2.0, "subset_contrast": 0.7, "xspecies": 0.3}
    _, _, out = run(corpus, weights)
    total = sum(weight * out["metrics"][name] for name, weight in weights.items())
    torch.testing.assert_close(out["loss"].detach(), total)


@pytest.mark.parametrize("name", ["mlm", "simcse", "subset_contrast", "xspecies"])
def test_gradients_reach_the_embeddings_from_every_objective(corpus, name):
    model, _, out = run(corpus, {name: 1.0})
    out["loss"].backward()
    for parameter in (
        model.encoder.bert.embeddings.word_embeddings.weight,
        model.encoder.bert.encoder.layer[0].attention.self.query.weight,
    ):
        assert parameter.grad.abs().sum() > 0


def test_views_run_once_each(corpus):
    model, batch, _ = run(corpus, {"mlm": 1.0, "subset_contrast": 1.0})
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    model(batch)
    assert model.views == ["masked", "subset"]
    assert len(calls) == 2


def test_dropout_makes_two_views_of_the_same_tokens(corpus):
    _, _, noisy = run(corpus, {"simcse": 1.0})
    _, batch, still = run(corpus, {"simcse": 1.0}, hidden_dropout_prob=0.0)
    assert batch["views"]["again"]["tokens"] is batch["views"]["masked"]["tokens"]
    assert noisy["loss"] > still["loss"]


def test_first_pools_the_top_gene_through_the_pooler(corpus):
    changes = {"simcse_pool": "first", "hidden_dropout_prob": 0.0}
    model, batch, out = run(corpus, {"simcse": 1.0}, **changes)
    assert model.encoder.has_pooler
    view = batch["views"]["masked"]
    hidden = model.encoder(view["tokens"], view["indptr"])
    vectors = model.encoder.pooler(hidden[view["first"]])
    torch.testing.assert_close(out["loss"], nt_xent(vectors, vectors, 0.05)[0])


def test_cells_are_paired_with_themselves_though_views_have_their_own_order(corpus):
    changes = {"species_token_dropout": 0.5, "subset_share": (1.0, 1.0), "subset_swapped": 0.0}
    model, batch, out = run(
        corpus, {"subset_contrast": 1.0}, **changes, mask_share=0.001, hidden_dropout_prob=0.0
    )
    orders = [batch["views"][name]["place"].tolist() for name in model.views]
    assert orders[0] != orders[1]
    assert out["metrics"]["subset_contrast_accuracy"] > 0.6  # 0.05 by chance


def accuracy_across_species(corpus, weights, steps=60):
    """Share of mouse cells whose nearest human cell shows the same module of genes."""
    changes = {**TINY, "num_hidden_layers": 1, "hidden_dropout_prob": 0.0, "tokens_per_step": 800}
    settings = recipe("mix-geneformer-x", vocabulary="separate", objectives=weights, **changes)
    model = make_model(corpus.vocabulary, settings).train()
    stream = Stream(corpus, settings, model.views)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        model(stream.batch(step))["loss"].backward()
        optimizer.step()
    cells = Stream(corpus, settings, ("full",)).assemble(np.arange(150), np.random.default_rng(0))
    view = cells["views"]["full"]
    with torch.no_grad():
        vectors = pooled(model.encoder, model.eval().encode("full", view), view, "mean").numpy()
    human, mouse = (np.random.default_rng(s).integers(4, size=n) for s, n in ((1, 120), (2, 30)))
    found = metrics.knn_transfer(vectors[:120], human.astype(str), vectors[120:], k=5)
    return np.mean(found == mouse.astype(str))


def test_the_swap_brings_species_together_that_share_no_token(files, separate, tmp_path):
    corpus = build_corpus(files, tmp_path / "corpus", vocabulary=separate, min_genes=5)
    alone = accuracy_across_species(corpus, {"mlm": 1.0})
    together = accuracy_across_species(corpus, {"mlm": 1.0, "xspecies": 1.0})
    assert together > 0.9
    assert alone < 0.7
