import numpy as np
import pytest
import torch

from scmix import attention as module
from scmix.attention import attention, can_flash, dropout

SHAPES = [[5], [1], [3, 3, 3], [7, 7, 2, 5, 5, 1], [4, 0, 4, 0], [130, 40, 40]]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
needs_flash = pytest.mark.skipif(
    not can_flash(torch.empty(1, 1, 8, dtype=torch.bfloat16, device="cuda"))
    if torch.cuda.is_available()
    else True,
    reason="needs CUDA with flash attention",
)


def packed(lengths, dtype, heads=2, dim=8, device="cpu"):
    """q, k, v as the encoder makes them: views of one fused product."""
    generator = torch.Generator().manual_seed(sum(lengths))
    qkv = torch.randn(sum(lengths), 3, heads, dim, generator=generator).to(device, dtype)
    cu = torch.tensor(np.concatenate([[0], np.cumsum(lengths)]), dtype=torch.int32, device=device)
    return qkv.requires_grad_(), cu


def run(backend, lengths, dtype, **options):
    qkv, cu = packed(lengths, dtype, **options)
    out = attention(*qkv.unbind(1), cu, lengths, backend)
    weight = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
    (out * weight).sum().backward()
    return out.detach().float(), qkv.grad.float()


@pytest.mark.parametrize("lengths", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["sdpa", "matmul", None])
def test_backends_equal_naive(backend, dtype, lengths):
    out, grad = run(backend, lengths, dtype)
    expected, expected_grad = run("naive", lengths, torch.float32)
    if dtype is torch.bfloat16:  # the reference sees the same rounded input
        qkv, cu = packed(lengths, dtype)
        expected = attention(*qkv.detach().float().unbind(1), cu, lengths, "naive")
    torch.testing.assert_close(out, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    torch.testing.assert_close(grad, expected_grad, atol=3 * TOLERANCE[dtype], rtol=0.1)


@needs_flash
@pytest.mark.parametrize("lengths", SHAPES)
@pytest.mark.parametrize("dim", [8, 64])
def test_flash_equals_naive(lengths, dim):
    lengths = [n for n in lengths if n]
    out, grad = run("flash_varlen", lengths, torch.bfloat16, dim=dim, device="cuda")
    expected, expected_grad = run("naive", lengths, torch.float32, dim=dim, device="cuda")
    torch.testing.assert_close(out, expected, atol=3e-2, rtol=3e-2)
    torch.testing.assert_close(grad, expected_grad, atol=1e-1, rtol=0.1)


@needs_flash
def test_flash_operator_of_older_torch_equals_naive(monkeypatch):
    monkeypatch.setattr(module, "_flash_function", lambda: module._aten_flash)
    test_flash_equals_naive([7, 7, 2, 5], 64)


def test_naive_is_softmax_attention():
    qkv, cu = packed([3, 2], torch.float32, heads=1, dim=4)
    q, k, v = (part[:, 0].detach().numpy().astype(np.float64) for part in qkv.unbind(1))
    scores = q @ k.T / 2
    scores[:3, 3:] = scores[3:, :3] = -np.inf
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    found = attention(*qkv.unbind(1), cu, [3, 2], "naive")[:, 0].detach().numpy()
    np.testing.assert_allclose(found, weights @ v, atol=1e-6)


@pytest.mark.parametrize("backend", ["sdpa", "matmul", "naive"])
def test_other_sequences_do_not_matter(backend):
    qkv, cu = packed([4, 6, 4], torch.float32)
    before = attention(*qkv.unbind(1), cu, [4, 6, 4], backend)
    changed = qkv.detach().clone()
    changed[4:10] += 1
    after = attention(*changed.unbind(1), cu, [4, 6, 4], backend)
    assert torch.equal(before[:4], after[:4])
    assert torch.equal(before[10:], after[10:])
    assert not torch.allclose(before[4:10], after[4:10])


@pytest.mark.parametrize("backend", ["sdpa", "matmul", "naive"])
def test_dropout_keeps_the_mean(backend):
    torch.manual_seed(0)
    qkv, cu = packed([100] * 20, torch.float32)
    q, k, v = qkv.detach().unbind(1)
    out = attention(q, k, torch.ones_like(v), cu, [100] * 20, backend, dropout_p=0.3)
    assert out.mean().item() == pytest.approx(1, abs=0.01)
    assert out.std() > 0.02


@pytest.mark.parametrize("backend", ["sdpa", "matmul", "naive", None])
def test_no_tokens(backend):
    qkv, cu = packed([], torch.float32)
    assert attention(*qkv.unbind(1), cu, [], backend).shape == (0, 2, 8)


def test_what_is_chosen_on_cpu():
    def chosen(lengths, dtype, dropout_p=0.0):
        return module._fastest(packed(lengths, dtype)[0][:, 0], lengths, dropout_p)

    longest = module.MATMUL_MAX_LENGTH
    assert chosen([8, 4], torch.float32) == "sdpa"
    assert chosen([8, 4], torch.float32, 0.1) == "matmul"
    assert chosen([8, 4], torch.bfloat16) == "matmul"
    assert chosen([longest + 1], torch.bfloat16) == "sdpa"
    with torch.no_grad():
        assert chosen([8, 4], torch.bfloat16) == "sdpa"


def test_unknown_backend():
    qkv, cu = packed([3], torch.float32)
    with pytest.raises(ValueError, match=r"backend='xformers', expected one of .*sdpa"):
        attention(*qkv.unbind(1), cu, [3], "xformers")


def test_flash_has_no_dropout():
    qkv, cu = packed([3], torch.float32)
    with pytest.raises(ValueError, match="sdpa"):
        attention(*qkv.unbind(1), cu, [3], "flash_varlen", dropout_p=0.1)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.02])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_share_and_scale(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(500, 1001, dtype=dtype)
    y = dropout(x, p, training=True)
    dropped = round(256 * p) / 256
    assert (y == 0).float().mean().item() == pytest.approx(dropped, abs=2e-3)
    assert y.unique().tolist() == [0, torch.tensor(1 / (1 - dropped), dtype=dtype).item()]
    assert y.float().mean().item() == pytest.approx(1, abs=5e-3)
    columns = (y == 0).float().mean(0)  # no byte of a draw is special
    assert columns.std().item() == pytest.approx((dropped * (1 - dropped) / 500) ** 0.5, rel=0.1)


def test_dropout_gradient_and_seed():
    def once(seed):
        torch.manual_seed(seed)
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(3)).requires_grad_()
        y = dropout(x, 0.4, training=True)
        y.sum().backward()
        torch.testing.assert_close(x.grad * x, y)
        return y

    assert torch.equal(once(1), once(1))
    assert not torch.equal(once(1), once(2))


def test_dropout_off():
    x = torch.randn(4, 3)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


@pytest.mark.parametrize("backend", ["sdpa", "matmul", "naive"])
def test_a_key_of_no_weight_is_not_attended_to(backend):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 7, 2, 4)
    bias = torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0, -1.0, 0.0])
    cu_seqlens = torch.tensor([0, 3, 7], dtype=torch.int32)
    found = attention(q, k, v, cu_seqlens, [3, 4], backend, key_bias=bias)
    scores = torch.einsum("ihd,jhd->hij", q, k) / 2 + bias
    apart = torch.arange(7) < 3
    scores[:, apart[:, None] != apart[None]] = -torch.inf
    expected = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v)
    torch.testing.assert_close(found, expected)
    gone = torch.where(torch.arange(7) == 4, -torch.inf, 0.0)
    without = attention(q, k, v, cu_seqlens, [3, 4], backend, key_bias=gone)
    kept = torch.arange(7) != 4
    fewer = torch.tensor([0, 3, 6], dtype=torch.int32)
    expected = attention(q[kept], k[kept], v[kept], fewer, [3, 3], "naive")
    torch.testing.assert_close(without[kept], expected)


def test_flash_takes_no_bias_of_keys():
    q = torch.zeros(2, 1, 4)
    with pytest.raises(ValueError, match='needs backend="matmul"'):
        attention(q, q, q, torch.tensor([0, 2]), [2], "flash_varlen", key_bias=torch.zeros(2))
