"""The fixed uniform mask is the same at every call and for every masker."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scmix.pretrain import build_corpus, recipe
from scmix.pretrain.model import make_model
from scmix.pretrain.stream import Stream
from scmix.pretrain.uniform_mask import loss_on_uniform_mask

TINY = {
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "max_length": 64,
    "tokens_per_step": 300,
    "mam_latents": 4,
    "mam_width": 8,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def whole(files, vocabulary, tmp_path_factory):
    """A corpus with all genes and their counts."""
    out = tmp_path_factory.mktemp("whole") / "corpus"
    options = {"vocabulary": vocabulary, "min_genes": 5, "n_genes": None, "values": True}
    return build_corpus(files, out, **options)


@pytest.mark.parametrize(
    ("name", "objective"), [("mam", "masked_values"), ("mix-geneformer", "mlm")]
)
def test_maskers_are_judged_by_the_same_mask(whole, name, objective):
    options = {"objectives": {objective: 1.0}, "vocabulary": "shared", **TINY}
    learned = recipe(name, masker="mam", **options)
    evenly = recipe(name, masker="uniform", mask_share=0.05, **options)
    model, rows = make_model(whole.vocabulary, learned).train(), np.arange(40)
    plain = make_model(whole.vocabulary, evenly)
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.manual_seed(0)
    one = loss_on_uniform_mask(model, whole, rows, learned)
    torch.manual_seed(1)
    assert one == loss_on_uniform_mask(model, whole, rows, learned)
    assert one == loss_on_uniform_mask(plain, whole, rows, evenly)
    assert model.training
    assert one[objective] != loss_on_uniform_mask(model, whole, rows, learned, share=0.5)[objective]


def test_it_is_the_loss_in_one_batch_of_all_cells(whole):
    settings = recipe("mam", masker="uniform", **{**TINY, "tokens_per_step": 10_000})
    model, rows = make_model(whole.vocabulary, settings).eval(), np.arange(30)
    found = loss_on_uniform_mask(model, whole, rows, settings, share=0.4)
    assert found.keys() == {"masked_values"}
    stream = Stream(whole, recipe(settings, mask_share=0.4, species_token_dropout=0), model.views)
    batch = stream.assemble(rows, np.random.default_rng([0, 0]))
    view = batch["views"]["valued"]
    with torch.no_grad():
        head = model.objectives["masked_values"].head
        predicted = head(model.encode("valued", view))[view["hidden"], 0]
    expected = F.mse_loss(predicted, view["values"][view["hidden"]])
    assert found["masked_values"] == pytest.approx(expected.item(), rel=1e-5)
