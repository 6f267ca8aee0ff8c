"""The network: size, norms, the flat vector, and the count of its arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deep.resnet import (
    Architecture,
    ResNet18,
    initial_parameters,
    load_flat,
    n_parameters,
    parameter_shapes,
    read_flat,
    training_operations,
)
from theory.support.errors import UserError


@pytest.mark.parametrize(("affine", "count"), [(False, 11_164_362), (True, 11_173_962)])
def test_full_width_has_11_16_million_parameters(affine: bool, count: int) -> None:
    """The difference is a scale and a shift for each of the 4,800 channels of the 20 norms."""
    architecture = Architecture(norm_affine=affine)
    assert n_parameters(architecture) == count
    with torch.device("meta"):
        module = ResNet18(architecture)
    assert sum(p.numel() for p in module.parameters()) == count


@pytest.mark.parametrize("affine", [False, True])
def test_norms_are_one_group_over_all_channels(affine: bool) -> None:
    module = ResNet18(Architecture(4, norm_affine=affine))
    norms = [m for m in module.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 20
    assert {m.num_groups for m in norms} == {1}
    x = torch.randn(3, norms[0].num_channels, 8, 8)
    expected = nn.functional.layer_norm(x, x.shape[1:])
    torch.testing.assert_close(norms[0](x), expected)


@pytest.mark.parametrize("affine", [False, True])
def test_flat_vector_follows_the_module(affine: bool) -> None:
    architecture = Architecture(2, 8, norm_affine=affine)
    module = ResNet18(architecture).double()
    named = [(name, tuple(p.shape)) for name, p in module.named_parameters()]
    assert named == parameter_shapes(architecture)
    flat = torch.from_numpy(initial_parameters(architecture, 3))
    load_flat(module, flat)
    assert torch.equal(read_flat(module), flat)


@pytest.mark.parametrize("affine", [False, True])
def test_initial_model_is_pytorchs_default(affine: bool) -> None:
    architecture = Architecture(8, 16, norm_affine=affine)
    start = initial_parameters(architecture, 0)
    position = 0
    for (name, shape), module_part in zip(
        parameter_shapes(architecture), ResNet18(architecture).parameters(), strict=True
    ):
        values = start[position : position + module_part.numel()]
        position += module_part.numel()
        if "norm" in name:
            assert (values == (1.0 if name.endswith("weight") else 0.0)).all()
        else:
            fan_in = np.prod(shape[1:]) if len(shape) > 1 else 64
            assert np.abs(values).max() <= 1 / np.sqrt(fan_in)
            assert np.abs(values).max() > 0.8 / np.sqrt(fan_in)
    assert (start == initial_parameters(architecture, 0)).all()
    assert (start != initial_parameters(architecture, 1)).any()


def test_training_operations_agree_with_a_count_of_the_calls() -> None:
    architecture = Architecture(4, 16)
    module = ResNet18(architecture)
    counter = FlopCounterMode(display=False)
    with counter:
        module(torch.randn(2, 3, 16, 16)).sum().backward()
    assert counter.get_total_flops() == 2 * training_operations(architecture)


@pytest.mark.parametrize(("width", "size"), [(0, 32), (4, 20), (4, 0)])
def test_impossible_architectures_are_user_errors(width: int, size: int) -> None:
    with pytest.raises(UserError):
        Architecture(width, size)
