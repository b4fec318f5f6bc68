"""Potentials of gravity in an expanding universe, Newton's and what general relativity adds.

Potentials are in units of c^2, so they have none. In the Poisson gauge the metric is
a^2 [-(1 + 2 Psi) dtau^2 + (1 - 2 Phi) dx^2]; here it is always Phi that is computed. References:

- M98: Matarrese, Mollerach & Bruni 1998, PRD 58, 043504 (second order, Einstein-de Sitter).
- B05: Bartolo, Matarrese & Riotto 2005, JCAP 10, 010 (with the initial conditions of inflation).
- V16: Villa & Rampf 2016, JCAP 01, 030 (with a cosmological constant).
- A16: Adamek, Daverio, Durrer & Kunz 2016, JCAP 07, 053 (the weak field of gevolution).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from map2map.errors import GeometryError
from map2map.physics.cosmology import check_matter, scale_factor
from map2map.physics.operators import derivative, wavenumbers
from map2map.physics.perturbations import inverse_laplacian, inverse_laplacian_modes
from map2map.physics.spacing import Spacing, cell_sizes

__all__ = ["HUBBLE_DISTANCE", "newtonian_potential", "relativistic_correction"]

HUBBLE_DISTANCE = 2997.92458
"""c / H0 [Mpc/h]."""


def newtonian_potential(
    overdensity: Float[Tensor, "*space"], spacing: Spacing, z: float, Om: float
) -> Float[Tensor, "*space"]:
    """The potential of a periodic density: laplacian Phi = 3/2 Om (H0 / c)^2 (1 + z) delta.

    Args:
        overdensity: delta at redshift ``z``; its mean is ignored.
        spacing: Comoving cell size [Mpc/h]; one per axis, or one for all.
        z: Redshift.
        Om: Matter density today, in units of the critical density.

    Returns:
        Phi [c^2], of mean 0.
    """
    factor = 1.5 * check_matter(Om) / HUBBLE_DISTANCE**2 / float(scale_factor(z))
    return factor * inverse_laplacian(overdensity, spacing)


def relativistic_correction(
    potential: Float[Tensor, "n m l"], spacing: Spacing
) -> Float[Tensor, "n m l"]:
    """What general relativity adds to Newton's potential at second order, in the Poisson gauge.

    It is -phi^2 - 4 Theta, with phi the linear potential and

        laplacian Theta = Psi_0 - 1/3 phi_,i phi_,i,
        laplacian Psi_0 = -1/2 [(laplacian phi)^2 - phi_,ij phi_,ij]

    (M98), or, in one equation without second derivatives (B05's form of the kernel),

        Theta = -1/2 laplacian^-2 d_i d_j (phi_,i phi_,j) + 1/6 laplacian^-1 (phi_,i phi_,i).

    It is the part that stays as it is in time in an Einstein-de Sitter universe, where the
    Newtonian part of second order grows with a; with a cosmological constant (V16) it is right
    early on. The coefficients follow from two laws: the traceless Einstein equation with the
    stress of moving matter (A16) makes Phi - Psi = -2 phi^2 - 10 Theta, and the curvature
    perturbation zeta = -(Phi + Phi^2) - 2/3 (Psi - Psi^2) is conserved on large scales, where it
    is taken to be Gaussian, as by inflation with one field (a_nl = 1 in B05). M98 has 2/3 phi^2
    for -phi^2, as it starts from a_nl = 0.

    Args:
        potential: The linear potential phi [c^2].
        spacing: Comoving cell size, of any unit; one per axis, or one for all.

    Returns:
        The correction [c^2], of the order of phi^2. Its mean is set to 0, which coordinates can
        do, and so are its Nyquist modes. Products are taken on the grid, so that wavenumbers above
        half of the Nyquist wavenumber are mirrored into it.
    """
    if potential.ndim != 3:
        raise GeometryError(f"a potential has three axes, not shape {tuple(potential.shape)}")
    sizes = cell_sizes(spacing, 3)
    k = wavenumbers(potential.shape, sizes)
    slopes = [derivative(potential, axis - 3, sizes[axis]) for axis in range(3)]
    # d_i d_j (phi_,i phi_,j); a product at a time, so that few cubes are in memory
    flux = torch.zeros_like(torch.fft.rfftn(potential))
    for i in range(3):
        for j in range(i, 3):
            twice = 1 if i == j else 2
            flux -= twice * (k[i] * k[j]).to(potential) * torch.fft.rfftn(slopes[i] * slopes[j])
    square = slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2
    theta = inverse_laplacian_modes(torch.fft.rfftn(square), k) / 6
    theta -= inverse_laplacian_modes(inverse_laplacian_modes(flux, k), k) / 2
    modes = -torch.fft.rfftn(potential**2) - 4 * theta
    modes[0, 0, 0] = 0
    for axis, n in enumerate(potential.shape):
        if n % 2 == 0:
            modes.select(axis, n // 2).zero_()
    correction: Tensor = torch.fft.irfftn(modes, s=potential.shape)
    return correction
