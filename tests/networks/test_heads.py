"""Heads by hand: what is pooled, what is flattened."""

import torch
import torch.nn.functional as F

from anomaly_lab.networks.heads import Head


def test_a_linear_head_is_a_layer_on_the_means() -> None:
    head, maps = Head((4, 3, 2), 5).eval(), [torch.zeros(1), torch.randn(2, 4, 3, 2)]
    layer = head.layers[-1]
    expected = maps[-1].mean((2, 3)) @ layer.weight.T + layer.bias
    torch.testing.assert_close(head(maps), expected[:, None])


def test_a_flattening_head_sees_where_something_is() -> None:
    torch.manual_seed(0)
    head, x = Head((4, 3, 2), 5, "flatten").eval(), torch.randn(2, 4, 3, 2)
    first, last = head.layers[2], head.layers[-1]
    expected = F.relu(x.flatten(1) @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(head([x]), expected[:, None])
    assert not torch.allclose(head([x.flip(3)]), head([x]))
    pooled = Head((4, 3, 2), 5, "dense").eval()
    torch.testing.assert_close(pooled([x.flip(3)]), pooled([x]))


def test_dropout_is_before_the_last_layer_and_only_in_training() -> None:
    head, x = Head((4, 3, 2), 5, dropout=1.0), torch.randn(2, 4, 3, 2)
    torch.testing.assert_close(head.train()([x])[:, 0], head.layers[-1].bias.expand(2, 5))
    assert not torch.allclose(head.eval()([x])[:, 0], head.layers[-1].bias.expand(2, 5))
