import pytest
import torch

from scmix import inference
from scmix.classifiers._expression import gene_matrix
from scmix.classifiers._heads import Head
from scmix.classifiers._network import (
    Network,
    as_batch,
    cross_entropy,
    first_tokens,
    freeze,
    with_pooler,
)


def make(model, **options):
    options = {"pool": "mean", "hidden_layer": 1, "gene_votes": True, "dropout": 0.0} | options
    encoder = with_pooler(model.encoder, options["pool"] == "pooler", 0)
    torch.manual_seed(0)
    network = Network(encoder, [3, 2], **options)
    for votes in network.votes:
        torch.nn.init.normal_(votes)
    return network.eval()


@pytest.fixture
def batch(model, make_cells):
    cells = make_cells(6).sequences  # 30 genes each, the encoder reads 24
    return cells, as_batch(cells, model.vocabulary, 24)


def test_logits_are_those_of_inference_and_heads(model, batch):
    cells, tensors = batch
    network = make(model)
    special_ids = model.vocabulary.special_ids
    pooled = inference.run(
        network.encoder,
        first_tokens(cells, 24),
        special_ids=special_ids,
        layer=1,
        dtype="float32",
        device="cpu",
    )
    genes = gene_matrix(cells, model.vocabulary)
    with torch.no_grad():
        found = network(tensors)
    for i, head in enumerate(network.heads):
        parts = (head.weight, head.bias, network.votes[i])
        expected = Head(*(part.detach().numpy() for part in parts)).logits(pooled, genes)
        assert found[i].numpy() == pytest.approx(expected, abs=1e-5)


def test_votes_read_genes_that_the_encoder_has_no_position_for(model, batch):
    cells, tensors = batch
    network = make(model)
    changed = cells.tokens.copy().reshape(6, 30)
    changed[:, -1] = changed[:, 0]
    other = as_batch(type(cells)(changed.ravel(), cells.indptr), model.vocabulary, 24)
    with torch.no_grad():
        assert not torch.allclose(network(tensors)[0], network(other)[0])


def test_loss_leaves_out_cells_without_a_label():
    logits = [torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [3.0, 0.0]])]
    codes = torch.tensor([[0, -1], [-1, -1]])
    expected = torch.nn.functional.cross_entropy(logits[0][:1], torch.tensor([0]))
    assert cross_entropy(logits, codes) == pytest.approx(expected)
    assert cross_entropy(logits, torch.full((2, 2), -1)) == 0


def trained(network):
    return {name.removeprefix("encoder.bert.") for name, p in network.named_parameters()
            if p.requires_grad}  # fmt: skip


def test_frozen_parts(model):
    network = make(model, hidden_layer=2)
    freeze(network, 0)
    assert "embeddings.word_embeddings.weight" in trained(network)
    assert not any(name.startswith("encoder.cls") for name in trained(network))
    network = make(model, hidden_layer=2)
    freeze(network, 1)
    layers = {name.split(".")[2] for name in trained(network) if "layer" in name}
    assert layers == {"1"}
    assert not any("embeddings" in name for name in trained(network))
    network = make(model, hidden_layer=2)
    freeze(network, -1)
    assert {name.split(".")[0] for name in trained(network)} == {"heads", "votes"}


def test_layers_above_the_pooled_one_are_not_trained(model):
    network = make(model, hidden_layer=1)
    freeze(network, 0)
    assert not any("layer.1." in name for name in trained(network))


def test_a_missing_pooler_starts_by_the_seed_and_the_rest_is_kept(model):
    one, same, other = (with_pooler(model.encoder, True, seed) for seed in (0, 0, 1))
    weight = "bert.pooler.dense.weight"
    assert torch.equal(one.state_dict()[weight], same.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(one.state_dict()[name], value)
