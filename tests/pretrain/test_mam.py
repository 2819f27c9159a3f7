"""Multinomial attention masking: exact draws, the right gradients, and what leaks where."""

import itertools
import math

import numpy as np
import pytest
import torch

from scmix._errors import InputError
from scmix.pretrain import build_corpus, recipe
from scmix.pretrain.maskers.mam import MultinomialAttention, Segments, plackett_luce
from scmix.pretrain.model import make_model
from scmix.pretrain.stream import Stream

TINY = {
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "max_length": 64,
    "tokens_per_step": 300,
    "hidden_dropout_prob": 0.0,
    "precision": "fp32",
    "mam_latents": 8,
    "mam_width": 16,
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole(files, vocabulary, tmp_path_factory):
    """A corpus with all genes and their counts."""
    out = tmp_path_factory.mktemp("whole") / "corpus"
    options = {"vocabulary": vocabulary, "min_genes": 5, "n_genes": None, "values": True}
    return build_corpus(files, out, **options)


def built(corpus, objective="masked_values", **changes):
    base = {"objectives": {objective: 1.0}, "masker": "mam"}
    settings = recipe("mam", **{**base, **TINY, **changes})
    torch.manual_seed(0)
    model = make_model(corpus.vocabulary, settings).train()
    return model, Stream(corpus, settings, model.views).batch(0)


def attention(n_keys=4, **changes):
    torch.manual_seed(1)
    options = {"share": 0.3, "n_latents": 6, "latent_width": 16, **changes}
    return MultinomialAttention(n_keys, 8, **options)


def test_segments_equal_a_loop_over_cells():
    torch.manual_seed(0)
    indptr = [0, 4, 4, 9]
    cells, scores = Segments(indptr, CPU), torch.randn(9, 3)
    scores[1] = -torch.inf
    parts = [scores[a:b] for a, b in itertools.pairwise(indptr)]
    torch.testing.assert_close(cells.softmax(scores), torch.cat([p.softmax(0) for p in parts]))
    torch.testing.assert_close(
        cells.sum(scores[2:, 0].exp().new_ones(9)), torch.tensor([4.0, 0, 5])
    )
    order = cells.order(scores[:, 0])
    expected = [
        start + part[:, 0].argsort(descending=True)
        for start, part in zip(indptr[:3], parts, strict=True)
    ]
    assert order.tolist() == torch.cat(expected).tolist()
    assert cells.position.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4]


def test_probabilities_of_ordered_draws_sum_to_one():
    chance = torch.tensor([0.4, 0.3, 0.2, 0.1])
    cells, taken = Segments([0, 4], CPU), torch.tensor([True, True, False, False])
    total = 0.0
    for draw in itertools.permutations(range(4), 2):
        rest = [i for i in range(4) if i not in draw]
        total += plackett_luce(chance[[*draw, *rest]], taken, cells).exp().item()
    assert total == pytest.approx(1, abs=1e-6)
    one_by_one = math.log(0.4) + math.log(0.3 / 0.6)
    assert plackett_luce(chance, taken, cells).item() == pytest.approx(one_by_one, rel=1e-6)


def test_draws_follow_the_multinomial_law_without_replacement():
    n = 20_000
    masker, genes = attention(share=0.5), torch.ones(4 * n, dtype=torch.bool)
    keys = torch.randn(4, 4).repeat(n, 1)
    torch.manual_seed(3)
    with torch.no_grad():
        choice = masker(keys, list(range(0, 4 * n + 1, 4)), genes)
    chance = choice.chance[:4]
    torch.testing.assert_close(choice.chance, chance.repeat(n))
    expected = np.zeros(4)
    for a, b in itertools.permutations(range(4), 2):
        expected[[a, b]] += (chance[a] * chance[b] / (1 - chance[a])).item()
    found = choice.hidden.view(n, 4).float().mean(0).numpy()
    np.testing.assert_allclose(found, expected, atol=0.015)


def test_chances_sum_to_one_in_low_precision_too():
    genes = torch.ones(500, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        chance = attention()(torch.randn(500, 4), [0, 500], genes).chance
    assert chance.dtype == torch.float32
    assert chance.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("mode", ["adversarial", "published"])
def test_as_many_distinct_genes_as_the_share_asks_for(mode):
    masker = attention(mode=mode, n_heads=8)
    indptr = [0, 1, 1, 11, 51]
    genes = torch.ones(51, dtype=torch.bool)
    genes[[1, 11]] = False  # special tokens
    choice = masker(torch.randn(51, 4), indptr, genes)
    cells = Segments(indptr, CPU)
    assert cells.sum(choice.hidden.long()).tolist() == [0, 0, round(0.3 * 9), round(0.3 * 39)]
    assert not choice.hidden[~genes].any()
    assert (choice.chance[~genes] == 0).all()
    torch.testing.assert_close(cells.sum(choice.chance), torch.tensor([1.0, 0, 1, 1]))


def test_the_masker_learns_to_hide_what_is_hard():
    """Genes of one kind cost more; after some steps they are drawn more often."""
    masker, n = attention(n_keys=2), 64
    hard = torch.arange(10) < 3
    keys = torch.stack([hard.float(), (~hard).float()], 1).repeat(n, 1)
    optimizer = torch.optim.Adam(masker.parameters(), lr=0.02)
    indptr, genes = list(range(0, 10 * n + 1, 10)), torch.ones(10 * n, dtype=torch.bool)
    for _ in range(60):
        choice = masker(keys, indptr, genes)
        losses = (choice.hidden & hard.repeat(n)).view(n, 10).sum(1).float()
        optimizer.zero_grad()
        masker.loss(choice, losses).backward()
        optimizer.step()
    chance = choice.chance.detach()[:10]
    assert chance[hard].mean() > 1.5 * chance[~hard].mean()
    assert chance.min() > 0.1 / 10 * 0.99  # the floor: every gene can be drawn


@pytest.mark.parametrize("objective", ["mlm", "masked_values"])
def test_latents_and_encoder_both_learn(whole, objective):
    model, batch = built(whole, objective)
    out = model(batch)
    out["loss"].backward()
    masker = model.masker.attention
    for parameter in (masker.latents, masker.query.weight, masker.key.weight, masker.read.weight):
        assert parameter.grad.abs().sum() > 0
    assert model.encoder.bert.embeddings.word_embeddings.weight.grad.abs().sum() > 0
    assert {objective, "mam", "mam_entropy"} <= out["metrics"].keys()
    assert "cells" not in out["metrics"]
    torch.testing.assert_close(
        out["loss"].detach(), out["metrics"][objective] + out["metrics"]["mam"]
    )
    assert 0.5 < out["metrics"]["mam_entropy"] <= 1.0001


def test_the_masked_model_is_rewarded_with_the_losses_of_its_own_cells(whole):
    model, batch = built(whole, "mlm")
    torch.manual_seed(4)
    hidden_batch, choice = model.masker.hide(model.encoder, batch)
    view, targets = hidden_batch["views"]["masked"], hidden_batch["targets"]
    hidden = {"masked": model.encode("masked", view)}
    _, metrics = model.objectives["mlm"].loss(model.encoder, hidden, hidden_batch)
    logits = model.encoder.logits(hidden["masked"][targets["positions"]])
    losses = torch.nn.functional.cross_entropy(logits, targets["labels"], reduction="none")
    for i, place in enumerate(view["place"].tolist()):
        start, stop = view["indptr"][place], view["indptr"][place + 1]
        mine = (targets["positions"] >= start) & (targets["positions"] < stop)
        assert metrics["cells"][i].item() == pytest.approx(losses[mine].mean().item(), rel=1e-4)
        assert mine.sum() == choice.n_hidden[place]
    assert (view["tokens"][targets["positions"]] == batch["mask_id"]).all()
    assert not view["keep"][targets["positions"]].any()


def predictions(model, batch, choice, values):
    """Predicted values of the chosen genes when the cell's own values are others."""
    view = {**batch["views"]["valued"], "values": values, "hidden": choice.hidden}
    if choice.summary is not None:
        keys = values[:, None]
        again = model.masker.attention(keys, view["indptr"], view["keep"])
        view["context"] = model.masker.attention.context(again, view["indptr"])
    with torch.no_grad():
        return model.objectives["masked_values"].head(model.encode("valued", view))[choice.hidden]


@pytest.mark.parametrize(("mode", "leaks"), [("adversarial", False), ("published", True)])
def test_hidden_values_reach_the_prediction_in_the_published_form_only(whole, mode, leaks):
    model, batch = built(whole, mam_mode=mode)
    values = batch["views"]["valued"]["values"]
    _, choice = model.masker.hide(model.encoder, batch)
    changed = torch.where(choice.hidden, values + 1, values)
    before, after = (predictions(model, batch, choice, v) for v in (values, changed))
    assert torch.equal(before, after) != leaks


@pytest.mark.parametrize(("mode", "depends"), [("adversarial", False), ("published", True)])
def test_the_choice_depends_on_hidden_values_in_the_published_form_only(whole, mode, depends):
    model, batch = built(whole, mam_mode=mode)
    view = batch["views"]["valued"]
    changed = view["values"].clone()
    changed[::3] += 1
    other = {**batch, "views": {"valued": {**view, "values": changed}}}
    chances = []
    for each in (batch, other):
        torch.manual_seed(5)  # the same half of the latents
        chances.append(model.masker.hide(model.encoder, each)[1].chance)
    assert torch.equal(*chances) != depends


def test_a_mask_that_is_given_is_kept(whole):
    model, _ = built(whole)
    settings = recipe("mam", **TINY, masker="uniform")
    batch = Stream(whole, settings, ("valued",)).batch(0)
    same, choice = model.masker.hide(model.encoder, batch)
    assert choice is None
    assert torch.equal(same["views"]["valued"]["hidden"], batch["views"]["valued"]["hidden"])
    assert "mam" not in model(batch)["metrics"]


def test_masked_values_is_the_squared_error_at_hidden_genes(whole):
    settings = recipe("mam", **TINY, masker="uniform")
    model = make_model(whole.vocabulary, settings)
    batch = Stream(whole, settings, model.views).batch(0)
    view = batch["views"]["valued"]
    with torch.no_grad():
        found = model.objectives["masked_values"].head(model.encode("valued", view))[:, 0]
    errors = (found - view["values"]).square()[view["hidden"]]
    torch.testing.assert_close(model(batch)["loss"].detach(), errors.mean())
    share = view["hidden"].sum() / view["keep"].sum()
    assert share.item() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": {"wced": 1.0}}, "name either mlm or masked_values"),
        ({"objectives": {"mlm": 1.0, "masked_values": 1.0}}, "name either mlm"),
        ({"masker": "mlm"}, "hides genes, not values"),
        ({"positions": True}, "rank tells its value"),
        ({"mam_mode": "cooperative"}, "adversarial, published"),
        ({"mam_width": 12}, "mam_width=12"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        recipe("mam", **changes)
