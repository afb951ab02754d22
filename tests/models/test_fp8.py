import torch
from torch import nn

from slam.models.fp8 import LARGEST, Fp8Linear, scaled, use_fp8


def test_a_row_keeps_its_largest_value_and_each_other_one_within_a_sixteenth():
    """e4m3 has three bits after the point: half of the last one is 1/16 of the value, above the smallest numbers."""
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 64)[:, None]
    values, scale = scaled(x)
    back = values.float() * scale
    largest = x.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(back.gather(1, largest), x.gather(1, largest))
    big = x.abs() > x.abs().amax(1, keepdim=True) * 2**-6 / LARGEST
    assert ((back - x).abs()[big] <= x.abs()[big] / 16 * 1.001).all()


def test_operands_that_e4m3_holds_are_multiplied_exactly():
    linear = nn.Linear(32, 16)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        linear.weight.copy_(torch.randint(-7, 8, (16, 32), generator=generator)).index_fill_(1, torch.tensor([0]), 7)
    x = torch.randint(-7, 8, (5, 3, 32), generator=generator).float().index_fill_(2, torch.tensor([1]), -7)
    torch.testing.assert_close(Fp8Linear(linear)(x), linear(x), rtol=1e-6, atol=1e-5)


def test_layers_of_sizes_that_the_product_does_not_take_stay():
    network = use_fp8(nn.Sequential(nn.Linear(16, 32), nn.Sequential(nn.Linear(32, 20))))
    assert isinstance(network[0], Fp8Linear) and type(network[1][0]) is nn.Linear
