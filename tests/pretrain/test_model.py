"""Every named recipe takes a step, and what it trains gets a gradient."""

import pytest
import torch

from scmix.pretrain import RECIPES, build_corpus, recipe
from scmix.pretrain.model import make_model
from scmix.pretrain.stream import Stream

TINY = {
    "vocabulary": "shared",
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "attention_probs_dropout_prob": 0.0,
    "max_length": 64,
    "length_multiple": 1,
    "tokens_per_step": 300,
    "datasets_per_step": 0,
    "keep_k": 12,
    "mam_latents": 8,
    "mam_width": 16,
    "value_decoder_width": 16,
    "value_decoder_layers": 1,
    "value_decoder_heads": 2,
    "value_bins": 8,
    "value_dropout": 0.0,
    "restore_genes": (16, 32),
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def whole(files, vocabulary, tmp_path_factory):
    """A corpus with all genes and their counts."""
    out = tmp_path_factory.mktemp("whole") / "corpus"
    options = {"vocabulary": vocabulary, "min_genes": 5, "n_genes": None, "values": True}
    return build_corpus(files, out, **options)


def one_step(corpus, settings):
    model = make_model(corpus.vocabulary, settings).train()
    model.start(corpus)
    out = model(Stream(corpus, settings, model.views).batch(0))
    out["loss"].backward()
    return model, out


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_reaches_every_parameter_that_is_trained(whole, name):
    model, out = one_step(whole, recipe(name, **TINY))
    assert torch.isfinite(out["loss"])
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    # data-parallel training needs a gradient for each, be it zero
    assert {n for n, p in trained.items() if p.grad is None} == set()
    assert all(torch.isfinite(p.grad).all() for p in trained.values())
    for objective in RECIPES[name].objectives:
        assert objective in out["metrics"]


def test_all_objectives_at_once_and_one_pass_for_each_view(whole):
    names = ["mlm", "simcse", "subset_contrast", "xspecies", "wced", "poisson"]
    weights = {name: 0.5 + i for i, name in enumerate(names)}
    settings = recipe("wced-rank", **{**TINY, "objectives": weights, "hidden_dropout_prob": 0.0})
    model, out = one_step(whole, settings)
    total = sum(weight * out["metrics"][name] for name, weight in weights.items())
    torch.testing.assert_close(out["loss"].detach(), total)
    assert model.views == ["masked", "again", "subset", "full", "swapped", "part"]
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    model(Stream(whole, settings, model.views).batch(1))
    assert len(calls) == len(model.views)


def test_without_positions_the_order_of_genes_says_nothing(whole):
    settings = recipe("wced", **TINY)
    model = make_model(whole.vocabulary, settings).eval()
    weight = model.encoder.bert.embeddings.position_embeddings.weight
    assert not weight.any()
    assert not weight.requires_grad
    view = Stream(whole, settings, ("full",)).batch(0)["views"]["full"]
    stop = view["indptr"][1]
    order = torch.cat([torch.randperm(stop), torch.arange(stop, len(view["tokens"]))])
    turned = {**view, **{name: view[name][order] for name in ("tokens", "keep", "values")}}
    with torch.no_grad():
        before, after = model.encode("full", view), model.encode("full", turned)
    torch.testing.assert_close(before[order], after)
