"""The laws of a norm, over every norm there is."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import map2map.norms
from map2map.norms import Chain, FunctionNorm, Log1p, Norm, Standardize


def scaled(x, undo=False):
    return x.mul_(0.5 if undo else 2.0)


# how to build those that cannot be built from nothing
SPECIAL = {
    Chain: lambda: Chain([Log1p(), Standardize()]),
    FunctionNorm: lambda: FunctionNorm(scaled, "scaled"),
}


def from_file():
    with TemporaryDirectory() as folder:
        np.save(Path(folder) / "moments.npy", np.array([3.0, 2.0, 4.0]))
        return Standardize(file=f"{folder}/moments.npy")


CLASSES = [
    cls
    for cls in (getattr(map2map.norms, name) for name in map2map.norms.__all__)
    if isinstance(cls, type) and issubclass(cls, Norm) and cls is not Norm
]


def fitted(make, dtype=torch.float64):
    norm = SPECIAL.get(make, make)()
    values = torch.rand(2, 50, generator=torch.manual_seed(0), dtype=torch.float64) * 8
    norm.fit(lambda: iter([values]))
    return norm.to(dtype)


@pytest.mark.parametrize("cls", [*CLASSES, from_file], ids=lambda cls: cls.__name__)
class TestEveryNorm:
    @given(values=st.lists(st.floats(0, 20), min_size=2, max_size=20))
    def test_inverse_undoes_it(self, cls, values):
        norm = fitted(cls)
        x = torch.tensor([values, values[::-1]], dtype=torch.float64).reshape(1, 2, -1)
        torch.testing.assert_close(norm.inverse(norm(x)), x, rtol=1e-9, atol=1e-9)

    def test_it_leaves_its_argument_alone(self, cls):
        x = torch.rand(2, 2, 3, 3, dtype=torch.float64)
        before = x.clone()
        norm = fitted(cls)
        norm.inverse(norm(x))
        assert torch.equal(x, before)

    def test_it_is_known_once_fitted_and_keeps_precision_and_device(self, cls):
        norm = fitted(cls)
        assert norm.fitted
        for dtype in (torch.float32, torch.float64):
            assert norm(torch.rand(1, 2, 3, dtype=dtype)).dtype == dtype
        assert norm.to("meta")(torch.rand(1, 2, 3, device="meta")).device.type == "meta"
