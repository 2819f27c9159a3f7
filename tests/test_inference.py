import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scmix import _device, inference
from scmix._errors import InputError, ModelFileError, ResourceError
from scmix.batches import Sequences
from scmix.encoder import Config, Encoder

CONFIG = Config(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=2,
    intermediate_size=48,
    max_position_embeddings=24,
    initializer_range=0.3,
)
SPECIAL = [0, 1, 2, 3]
CPU32 = {"device": "cpu", "dtype": "float32"}


def make_encoder(cls=Encoder, **options):
    torch.manual_seed(0)
    return cls(CONFIG, **options).eval()


ENCODER = make_encoder(pooler=True)
rows_of_genes = st.lists(
    st.lists(st.integers(4, 59), min_size=1, max_size=20), min_size=1, max_size=8
)


def with_species(rows, token=2):
    return Sequences.from_list([[token, *row] for row in rows])


def some_cells(n=9, seed=0):
    rng = np.random.default_rng(seed)
    return with_species([rng.integers(4, 60, k) for k in rng.integers(1, 23, n)])


def embed(cells, encoder=ENCODER, **options):
    return inference.run(encoder, cells, **{"special_ids": SPECIAL, **CPU32, **options})


@settings(max_examples=40)
@given(rows=rows_of_genes, budget=st.integers(1, 60), data=st.data())
def test_batch_size_order_and_company_do_not_matter(rows, budget, data):
    whole = embed(with_species(rows))
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = embed(with_species([rows[i] for i in order]), batch_tokens=budget)
    np.testing.assert_allclose(shuffled, whole[order], atol=1e-5)
    alone = embed(with_species(rows[:1]))
    np.testing.assert_allclose(alone[0], whole[0], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_pools_by_hand(layer):
    cells = some_cells()
    expected = {pool: [] for pool in inference.POOLS}
    for tokens in cells:
        hidden = ENCODER(torch.from_numpy(tokens), [0, len(tokens)], layer=layer)
        expected["mean"].append(hidden[1:].mean(0, keepdim=True))
        expected["first"].append(hidden[1:2])
        expected["cls"].append(hidden[:1])
        expected["pooler"].append(ENCODER.pooler(hidden[:1]))
        expected["tokens"].append(hidden)
    for pool, rows in expected.items():
        found = embed(cells, pool=pool, layer=layer, cls_id=2, batch_tokens=30)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, torch.cat(rows), atol=1e-5)


def test_cells_without_genes_are_nan():
    cells = Sequences.from_list([[], [2, 8, 9], [2], [5]])
    for pool in ("mean", "first", "pooler"):
        found = embed(cells, pool=pool)
        assert np.isnan(found).all(1).tolist() == [True, False, True, False]
    assert embed(Sequences.from_list([])).shape == (0, 32)
    assert np.isnan(embed(Sequences.from_list([[], []]))).all()


def test_bfloat16_is_close_to_float32():
    cells = some_cells(30)
    exact, rounded = embed(cells), embed(cells, dtype="bfloat16")
    assert rounded.dtype == np.float32
    cosine = (exact * rounded).sum(1) / np.linalg.norm(exact, axis=1)
    assert (cosine / np.linalg.norm(rounded, axis=1)).min() > 0.99


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_encoder_stays_as_it_was(dtype):
    encoder = make_encoder().train()
    before = copy.deepcopy(encoder.state_dict())
    first = embed(some_cells(), encoder, dtype=dtype)
    assert encoder.training
    for name, value in encoder.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])
    assert all(p.requires_grad and p.grad is None for p in encoder.parameters())
    encoder.bert.encoder.layer[1].output.LayerNorm.weight.data.mul_(2)  # no stale copy is used
    assert not np.allclose(embed(some_cells(), encoder, dtype=dtype), first)


def test_a_prepared_encoder_is_used_as_it_is():
    ready = inference.prepare(ENCODER, torch.device("cpu"), torch.bfloat16)
    assert ready is not ENCODER
    assert inference.prepare(ready, torch.device("cpu"), torch.bfloat16) is ready


class Cramped(Encoder):
    """Runs out of memory above some tokens."""

    limit = 40
    error: type[Exception] | Exception = MemoryError

    def forward(self, tokens, indptr, **options):
        self.seen.append(len(tokens))
        if len(tokens) > self.limit:
            raise self.error
        return super().forward(tokens, indptr, **options)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_halves_the_batches(error):
    cells = some_cells(40)
    cramped = make_encoder(Cramped)
    cramped.seen, cramped.error = [], error
    expected = embed(cells, make_encoder())
    with pytest.warns(RuntimeWarning, match=r"do not fit into memory; .* batch_tokens=\d+") as told:
        found = embed(cells, cramped, batch_tokens=10_000)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    failed = [n for n in cramped.seen if n > cramped.limit]
    assert len(failed) <= math.ceil(math.log2(cells.tokens.size / cramped.limit)) + 1
    assert sum(n for n in cramped.seen if n <= cramped.limit) == cells.tokens.size
    assert len(told) == len(failed)


def test_a_cell_that_does_not_fit():
    cramped = make_encoder(Cramped)
    cramped.seen, cramped.limit = [], 5
    with pytest.raises(ResourceError, match=r"single cell of \d+ tokens"):
        embed(some_cells(), cramped)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), KeyboardInterrupt()])
def test_other_errors_pass_through(error):
    cramped = make_encoder(Cramped)
    cramped.seen, cramped.limit, cramped.error = [], 0, error
    with pytest.raises(type(error)):
        embed(some_cells(), cramped)
    assert len(cramped.seen) == 1


def test_values_that_are_not_finite():
    broken = make_encoder()
    broken.bert.embeddings.LayerNorm.bias.data[3] = torch.nan
    with pytest.raises(ModelFileError, match="not finite"):
        embed(some_cells(), broken)


class Overflows(Encoder):
    """Gives NaN in half precision."""

    def forward(self, tokens, indptr, **options):
        hidden = super().forward(tokens, indptr, **options)
        return hidden if hidden.dtype == torch.float32 else hidden * torch.nan


def test_half_precision_that_fails_is_repeated_in_float32(monkeypatch):
    monkeypatch.setattr(_device, "_fast_in_bfloat16", lambda device: True)
    encoder, cells = make_encoder(Overflows), some_cells()
    with pytest.warns(RuntimeWarning, match="again in float32"):
        found = embed(cells, encoder, dtype="auto")
    np.testing.assert_array_equal(found, embed(cells, encoder))
    with pytest.raises(ModelFileError, match="not finite"):
        embed(cells, encoder, dtype="bfloat16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "median"}, "pool='median', expected one of mean"),
        ({"pool": "cls"}, "no <cls> token"),
        ({"pool": "cls", "cls_id": 3}, "does not begin with <cls>"),
        ({"layer": 3}, "layer=3"),
        ({"device": "gpu"}, "device='gpu', expected"),
        ({"dtype": "float8"}, "dtype='float8', expected"),
        ({"dtype": torch.int8}, "expected 'auto'"),
        ({"batch_tokens": 0}, "at least 1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        embed(some_cells(), **options)


def test_pooler_that_is_not_there():
    with pytest.raises(InputError, match="no pooler"):
        embed(some_cells(), make_encoder(), pool="pooler")


@pytest.mark.parametrize("tokens", [[2, 60], [2, -1]])
def test_tokens_of_another_vocabulary(tokens):
    with pytest.raises(InputError, match=rf"token {tokens[1]}; this model has tokens 0 to 59"):
        embed(Sequences.from_list([tokens]))


def test_cell_that_is_too_long():
    with pytest.raises(InputError, match="25 tokens; this model takes at most 24"):
        embed(Sequences.from_list([[5] * 25]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_a_gpu():
    with pytest.raises(InputError, match="sees 0 CUDA GPUs"):
        embed(some_cells(), device="cuda")
    assert inference.choose("auto")[0] == inference.choose(None)[0] == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gpu_equals_cpu(dtype):
    cells = some_cells(30)
    found = embed(cells, device="cuda", dtype=dtype)
    atol = 1e-3 if dtype == "float32" else 0.1
    np.testing.assert_allclose(found, embed(cells), atol=atol)


def test_bfloat16_only_where_it_is_fast(monkeypatch):
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda fast=fast: fast)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        assert inference.choose("cpu", "auto")[1] is expected
        assert inference.choose("cpu", None)[1] is expected


@torch.no_grad()
def test_logits_at_chosen_positions():
    cells = some_cells()
    at = np.array([5, 3, 40, 5, cells.tokens.size - 1])
    hidden = ENCODER(torch.from_numpy(cells.tokens), cells.indptr)
    expected = ENCODER.logits(hidden[at])
    for budget in (None, 24):
        found = inference.logits_at(ENCODER, cells, at, batch_tokens=budget, **CPU32)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert inference.logits_at(ENCODER, cells, np.array([], int), **CPU32).shape == (0, 60)
    with pytest.raises(InputError, match="between 0 and"):
        inference.logits_at(ENCODER, cells, np.array([cells.tokens.size]))


def test_progress_counts_cells(capsys):
    embed(some_cells(7), progress=True)
    assert "7/7" in capsys.readouterr().err
    embed(some_cells(7))
    assert capsys.readouterr().err == ""
