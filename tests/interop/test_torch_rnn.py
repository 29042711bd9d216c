"""Recurrent layers with the weights of PyTorch's compute what PyTorch's compute."""

from typing import Any

import numpy as np
import pytest

from encdec.interop.torch_rnn import recurrent_params
from encdec.models.layers import Recurrent, zero_state
from encdec.ops.recurrence import output
from encdec.types import InputError

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.peers

T, B, N, H = 6, 3, 5, 4
MODULES = {"simple": "RNN", "lstm": "LSTM", "gru-reset-after": "GRU"}


def weights_of(module: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", MODULES)
def test_both_directions_of_two_layers(cell: str, bias: bool) -> None:
    torch.manual_seed(0)
    module = getattr(torch.nn, MODULES[cell])(N, H, num_layers=2, bidirectional=True, bias=bias)
    inputs = np.random.default_rng(0).normal(size=(T, B, N)).astype(np.float32)
    with torch.no_grad():
        expected, last = module(torch.from_numpy(inputs))
    x: Any = inputs
    for layer in range(2):
        sides = []
        for reverse in (False, True):
            params = recurrent_params(weights_of(module), cell, layer, reverse=reverse)
            network = Recurrent(cell, x.shape[-1], H, reverse).bind({"params": params})
            zero = zero_state(cell, x, H)
            state, outputs = network(network.project(x), np.ones((T, B), bool), zero)
            sides.append(outputs)
            of_torch = (last[0] if cell == "lstm" else last)[2 * layer + reverse]
            np.testing.assert_allclose(output(state), of_torch.numpy(), atol=1e-6)
        x = np.concatenate(sides, -1)
    np.testing.assert_allclose(x, expected.numpy(), atol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    weights = weights_of(torch.nn.GRU(N, H))
    with pytest.raises(InputError, match=r"cell = 'gru' has no counterpart"):
        recurrent_params(weights, "gru")
    with pytest.raises(InputError, match=r"no weight_ih_l1 \(weight_ih_l0, "):
        recurrent_params(weights, "gru-reset-after", 1)
    with pytest.raises(InputError, match=r"shape \[12, 4\]: .* cell lstm has \[4 hidden"):
        recurrent_params(weights, "lstm")
