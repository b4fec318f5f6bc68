"""The simulator against displacements of an independent particle-mesh code (jaxpm 0.1.6)."""

import numpy as np
import pytest
import torch

from map2map.physics.spectra import cross_correlation, transfer
from map2map.synthetic.nbody import evolve

SPACING = 2.0


@pytest.mark.parametrize("run", ["00", "03", "05"])
def test_the_power_of_the_displacement_is_within_five_percent(real_data, run):
    za, pm = (np.load(real_data / "nbody" / f"{name}_{run}.npy") for name in ("za", "pm"))
    final = evolve(torch.from_numpy(za), SPACING)[0].numpy()
    k, ratio = transfer(final, pm, SPACING, ndim=3)
    low = k < np.pi / SPACING / 2
    assert low.sum() >= 15
    np.testing.assert_allclose(ratio[low] ** 2, 1, atol=0.05)
    assert cross_correlation(final, pm, SPACING, ndim=3)[1].min() > 0.98
    assert 1 - ((final - pm) ** 2).sum() / ((pm - pm.mean()) ** 2).sum() > 0.999
