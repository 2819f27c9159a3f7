import math

import numpy as np
import torch

from scmix.decoders._log_values import log_values
from scmix.decoders._value_embeddings import FixedBins, SoftBins


def test_values_are_log1p_of_scaled_shares():
    counts, totals = np.array([0, 3, 7, 5]), np.array([10, 10, 1000, 0])
    expected = [0, np.log1p(1e4 * 0.3), np.log1p(1e4 * 0.007), 0]
    np.testing.assert_allclose(log_values(counts, totals), expected, rtol=1e-6)
    np.testing.assert_allclose(log_values(counts, totals, 100.0)[1], np.log1p(30), rtol=1e-6)


def test_soft_bins_equal_the_published_formula():
    torch.manual_seed(0)
    module = SoftBins(7, 5, most=9.2)
    for parameter in module.parameters():
        parameter.data.normal_()
    x = np.array([0.0, 0.4, 2.5, 9.2])
    parts = {name: p.detach().numpy().astype(np.float64) for name, p in module.named_parameters()}
    h = x[:, None] @ parts["rise.weight"].T + parts["rise.bias"]
    h = np.where(h > 0, h, 0.1 * h)
    scores = h @ parts["mix.weight"].T + parts["mix.bias"] + h
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    found = module(torch.from_numpy(x).float()).detach().numpy()
    np.testing.assert_allclose(found, shares @ parts["table.weight"], atol=1e-5)


def test_soft_bins_have_a_gradient_in_every_part_and_in_the_value():
    module = SoftBins(7, 5, most=9.2)
    x = torch.tensor([0.3, 1.9], requires_grad=True)
    module(x).pow(2).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())
    assert (x.grad.abs() > 0).all()


def test_near_values_are_near():
    torch.manual_seed(0)
    one, near, far = SoftBins(20, 16, most=9.2)(torch.tensor([2.0, 2.01, 8.0])).detach()
    assert (one - near).norm() < 0.05 * (one - far).norm()


def test_fixed_bins_keep_zero_apart_and_cover_the_range():
    module = FixedBins(11, 4, most=10.0)
    values = torch.tensor([0.0, 1e-6, 0.99, 1.0, 5.5, 9.99, 10.0, 12.0])
    assert module.bins(values).tolist() == [0, 1, 1, 2, 6, 10, 10, 10]
    assert torch.equal(module(values), module.table.weight[module.bins(values)])


def test_the_largest_value_is_in_the_last_bin():
    module = FixedBins(50, 4, most=math.log1p(1e4))
    assert module.bins(torch.tensor([math.log1p(1e4)])).tolist() == [49]
