import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scmix._errors import InputError
from scmix.decoders import Settings
from scmix.decoders._settings import tensor_shapes

LENGTHS = [4, 0, 9, 1]


def packed(decoder, seed=0):
    generator = torch.Generator().manual_seed(seed)
    width = decoder.memory.in_features
    hidden = torch.randn(sum(LENGTHS), width, generator=generator)
    return hidden, np.concatenate([[0], np.cumsum(LENGTHS)]).tolist()


def naive_layer(layer, x, memory):
    """One layer for one cell, attention written out."""
    asked, known = layer.before_attention(x), layer.before_attention(memory)
    n, size = layer.n_heads, x.shape[1] // layer.n_heads
    heads = []
    for i in range(n):
        part = slice(i * size, (i + 1) * size)
        q, k, v = (
            layer.query(asked)[:, part],
            layer.key(known)[:, part],
            layer.value(known)[:, part],
        )
        heads.append((q @ k.T / size**0.5).softmax(1) @ v)
    x = x + layer.output(torch.cat(heads, 1))
    return x + layer.narrow(F.silu(layer.wide(layer.before_dense(x))))


def naive(decoder, words, hidden, indptr, genes, species):
    """Each cell alone: all genes at once behind the visible ones, in one dense sequence."""
    out = []
    for i, code in enumerate(species):
        visible = hidden[indptr[i] : indptr[i + 1]]
        memory = torch.cat([decoder.anchor[None], decoder.memory(visible)])
        x = decoder.query(F.layer_norm(words(genes), (words.embedding_dim,)))
        for layer in decoder.layers:
            x = naive_layer(layer, x, memory)
            if decoder.settings.kind == "value_autoencoder":
                memory = naive_layer(layer, memory, memory)
        z = decoder.head(decoder.norm(x))[:, 0]
        out.append(decoder.mean[code, genes] + decoder.scale[code, genes] * z)
    return torch.stack(out)


@torch.no_grad()
def test_sampled_genes_equal_the_dense_decoder(decoder, encoder):
    words = encoder.bert.embeddings.word_embeddings
    hidden, indptr = packed(decoder)
    species = torch.tensor([0, 1, 1, 0])
    everything = torch.arange(5, 65)
    expected = naive(decoder, words, hidden, indptr, everything, species)
    rng = np.random.default_rng(0)
    wanted = [np.sort(rng.choice(60, n, replace=False)) for n in (3, 7, 60, 1)]
    bounds = np.concatenate([[0], np.cumsum([3, 7, 60, 1])]).tolist()
    genes = everything[np.concatenate(wanted)]
    found = decoder(words, *decoder.remember(hidden, indptr), genes, bounds, species)
    rows = torch.cat([expected[i, where] for i, where in enumerate(wanted)])
    torch.testing.assert_close(found, rows, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_before_training_the_mean_is_predicted(encoder, fresh):
    decoder = fresh("restore")
    decoder.mean.normal_()
    hidden, indptr = packed(decoder)
    genes, species = torch.tensor([9, 9, 30, 31]), torch.tensor([0, 1, 1, 0])
    words = encoder.bert.embeddings.word_embeddings
    found = decoder(words, *decoder.remember(hidden, indptr), genes, [0, 1, 2, 3, 4], species)
    assert torch.equal(found, decoder.mean[species, genes])


def test_every_parameter_learns(decoder, encoder):
    decoder.train()
    words = encoder.bert.embeddings.word_embeddings
    tokens = torch.arange(10, 24)
    hidden, indptr = packed(decoder)
    added = decoder.added(torch.rand(14) * 9, torch.ones(14, dtype=torch.bool))
    hidden = encoder(tokens, indptr, added=added)
    genes = torch.arange(5, 65)
    memories = decoder.remember(hidden, indptr)
    found = decoder(words, *memories, genes, [0, 15, 30, 45, 60], torch.tensor([0, 1, 1, 0]))
    found.pow(2).sum().backward()
    assert [name for name, p in decoder.named_parameters() if not p.grad.abs().sum() > 0] == []
    encoder.zero_grad()


def test_nothing_is_added_where_no_value_is_known(decoder):
    known = torch.tensor([True, False, True])
    added = decoder.added(torch.tensor([1.0, 1.0, 0.0]), known)
    assert added[1].abs().sum() == 0
    assert (added[[0, 2]].abs().sum(1) > 0).all()


def test_depth_is_added_where_it_is_read(fresh):
    decoder = fresh("value_autoencoder", reads_depth=True)
    values, known = torch.ones(2), torch.ones(2, dtype=torch.bool)
    shallow, deep = decoder.added(values, known, torch.tensor([[3.0, 3.0], [3.0, 4.0]]))
    assert not torch.allclose(shallow, deep)


@pytest.mark.parametrize("reads_depth", [False, True])
@pytest.mark.parametrize("kind", ["value_autoencoder", "restore"])
def test_tensors_are_those_that_the_settings_describe(encoder, fresh, kind, reads_depth):
    decoder = fresh(kind, reads_depth=reads_depth)
    found = {name: tuple(x.shape) for name, x in decoder.state_dict().items()}
    sizes = {"hidden_size": encoder.config.hidden_size, "vocab_size": encoder.config.vocab_size}
    assert found == tensor_shapes(decoder.settings, **sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "other"}, "value_autoencoder, restore"),
        ({"width": 10, "num_heads": 4}, "multiple of 4"),
        ({"n_bins": 1}, "at least 2"),
        ({"num_layers": 0}, "from 1 to"),
        ({"width": True}, "from 1 to"),
        ({"total": 0.0}, "1.0 to 1e9"),
        ({"reads_depth": 1}, "true or false"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(InputError, match=message):
        Settings(**{"kind": "restore", **change})
