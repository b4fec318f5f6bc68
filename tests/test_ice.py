"""Ice flow against closed formulas, integrals, an exact solution and conservation laws."""

import numpy as np
import pytest
from scipy.integrate import quad

from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.physics.glacier import Climate, Massif, evolve
from map2map.physics.ice import (
    DENSITY,
    GRAVITY,
    Velocity,
    conserve_mass,
    driving_stress,
    longest_step,
    shallow_ice,
    slopes,
)
from map2map.physics.ice_membrane import largest_root, membrane_flow


def slab(shape=(5, 6), thickness=100.0, slope=(-0.1, 0.0), spacing=(50.0, 80.0)):
    """Thickness and surface of a slab of ice that falls by ``slope`` along x and y."""
    y, x = (cell * np.arange(n) for n, cell in zip(shape, spacing, strict=True))
    return np.full(shape, thickness), 3000 + slope[0] * x + slope[1] * y[:, None]


def test_a_slab_moves_as_computed_by_hand():
    thickness, surface = slab()
    flow = shallow_ice(thickness, surface, (50.0, 80.0), arrhenius=100.0, slidingco=10.0)
    # 910 kg/m3 x 9.81 m/s2 x 100 m x 0.1 = 0.089271 MPa, the cube of which is 7.11434e-4 MPa^3
    np.testing.assert_allclose(flow.drag, 0.089271, rtol=1e-5)
    # 10 km MPa^-3 yr^-1 of it is 7.11434 m/yr; 100 x 7.11434e-4 x 100 m / 2 is 3.55717 m/yr
    np.testing.assert_allclose(flow.base.x, 7.11434, rtol=1e-5)
    np.testing.assert_allclose(flow.surface.x, 7.11434 + 3.55717, rtol=1e-5)
    # 2/5 instead of 1/2 of it
    np.testing.assert_allclose(flow.mean.x, 7.11434 + 2.845736, rtol=1e-5)
    for velocity in (flow.base, flow.mean, flow.surface):
        np.testing.assert_array_equal(velocity.y, 0)


def test_a_slab_moves_down_its_slope_in_any_direction():
    thickness, surface = slab(slope=(0.03, -0.04))
    mean = shallow_ice(thickness, surface, (50.0, 80.0)).mean
    down = shallow_ice(*slab(slope=(-0.05, 0.0)), (50.0, 80.0)).mean.speed
    np.testing.assert_allclose(mean.x, -0.6 * down, rtol=1e-9)
    np.testing.assert_allclose(mean.y, 0.8 * down, rtol=1e-9)


def test_velocities_are_integrals_of_glens_law_over_the_depth():
    thickness, surface = slab(thickness=230.0)
    flow = shallow_ice(thickness, surface, (50.0, 80.0), arrhenius=78.0)
    weight = DENSITY * GRAVITY * 0.1 / 1e6

    def speed(z):
        # du/dz = 2 A tau^3, from the base at 0 to z
        return quad(lambda h: 2 * 78.0 * (weight * (230 - h)) ** 3, 0, z)[0]

    np.testing.assert_allclose(flow.surface.x, speed(230.0), rtol=1e-8)
    np.testing.assert_allclose(flow.mean.x, quad(speed, 0, 230)[0] / 230, rtol=1e-8)


def test_coefficients_may_differ_from_cell_to_cell_and_bare_ground_rests():
    thickness, surface = slab()
    thickness[:, 3] = 0
    rate = np.linspace(50, 100, 30).reshape(5, 6)
    flow = shallow_ice(thickness, surface, (50.0, 80.0), arrhenius=rate)
    alone = shallow_ice(thickness, surface, (50.0, 80.0), arrhenius=float(rate[2, 1]))
    assert flow.surface.x[2, 1] == alone.surface.x[2, 1] > 0
    assert flow.surface.x[2, 2] > flow.surface.x[2, 1]
    assert not flow.surface.speed[:, 3].any()


def test_slopes_are_exact_for_a_parabola_inside_and_for_a_plane_everywhere():
    y, x = np.mgrid[:6, :7] * np.array([20.0, 50.0])[:, None, None]
    along_x, along_y = slopes(x**2 + 3 * y, (20.0, 50.0))
    np.testing.assert_allclose(along_x[:, 1:-1], 2 * x[:, 1:-1])
    np.testing.assert_allclose(along_y, 3)


# --- conservation of mass ----------------------------------------------------------------------


def random_ice(shape=(12, 15), seed=0):
    rng = np.random.default_rng(seed)
    thickness = np.zeros(shape)
    thickness[3:-3, 3:-3] = rng.uniform(0, 200, (shape[0] - 6, shape[1] - 6))
    return thickness, Velocity(*rng.normal(scale=50, size=(2, *shape)))


def test_ice_is_neither_made_nor_lost_and_never_negative():
    thickness, velocity = random_ice()
    step = longest_step(velocity, (100.0, 60.0))
    moved = conserve_mass(thickness, velocity, (100.0, 60.0), step)
    np.testing.assert_allclose(moved.sum(), thickness.sum(), rtol=1e-13)
    assert moved.min() >= 0
    assert np.abs(moved - thickness).max() > 10


def test_a_longer_step_would_take_what_is_not_there_and_is_refused():
    thickness, velocity = random_ice()
    longest = longest_step(velocity, 100.0)
    # the cell that empties first, alone: nothing comes in
    one = np.zeros_like(thickness)
    faces_x = (velocity.x[:, 1:] + velocity.x[:, :-1]) / 2
    faces_y = (velocity.y[1:] + velocity.y[:-1]) / 2
    out = np.maximum(np.pad(faces_x, [(0, 0), (0, 1)], mode="edge"), 0)
    out[:, -1] = np.maximum(velocity.x[:, -1], 0)
    out[:, 1:] += np.maximum(-faces_x, 0)
    out[:, 0] += np.maximum(-velocity.x[:, 0], 0)
    out[:-1] += np.maximum(faces_y, 0)
    out[-1] += np.maximum(velocity.y[-1], 0)
    out[1:] += np.maximum(-faces_y, 0)
    out[0] += np.maximum(-velocity.y[0], 0)
    np.testing.assert_allclose(longest, 100 / out.max())
    one[np.unravel_index(out.argmax(), out.shape)] = 7.0
    emptied = conserve_mass(one, velocity, 100.0, longest)
    assert emptied.ravel()[out.argmax()] == pytest.approx(0, abs=1e-12)
    with pytest.raises(RecipeError, match="at most"):
        conserve_mass(thickness, velocity, 100.0, 1.01 * longest)
    with pytest.raises(RecipeError, match="must be positive"):
        conserve_mass(thickness, velocity, 100.0, 0.0)


def test_ice_that_crosses_the_edge_is_what_is_lost():
    thickness, velocity = np.full((4, 5), 10.0), Velocity(np.full((4, 5), 20.0), np.zeros((4, 5)))
    moved = conserve_mass(thickness, velocity, 100.0, 1.0)
    np.testing.assert_allclose(thickness.sum() - moved.sum(), 4 * 10 * 20 / 100)
    # it leaves on one side, and nothing comes from beyond the other
    np.testing.assert_allclose(moved[:, 0], 8)
    np.testing.assert_allclose(moved[:, 1:], 10)


def test_still_ice_grows_by_its_balance_and_melts_no_further_than_the_ground():
    thickness, still = np.array([[5.0, 1.0], [0.0, 2.0]]), Velocity(*np.zeros((2, 2, 2)))
    assert longest_step(still, 100.0) == np.inf
    balance = np.array([[1.0, -4.0], [-1.0, -2.0]])
    expected = [[5.5, 0], [0, 1]]
    assert conserve_mass(thickness, still, 100.0, 0.5, balance).tolist() == expected


def test_a_hump_is_carried_at_the_velocity_of_the_ice():
    n, cell, speed = 200, 50.0, 30.0
    x = cell * np.arange(n)
    thickness = np.tile(100 * np.exp(-(((x - 2500) / 600) ** 2)), (3, 1))
    velocity = Velocity(np.full((3, n), speed), np.zeros((3, n)))
    duration, step = 100.0, longest_step(velocity, cell, 0.8)
    steps = int(np.ceil(duration / step))
    moved = thickness
    for _ in range(steps):
        moved = conserve_mass(moved, velocity, cell, duration / steps)

    def moments(hump):
        center = (x * hump).sum() / hump.sum()
        return center, ((x - center) ** 2 * hump).sum() / hump.sum()

    (before, width), (after, wider) = moments(thickness[1]), moments(moved[1])
    np.testing.assert_allclose(after - before, speed * duration, rtol=1e-6)
    # the diffusion of upwind differences, u dx (1 - courant) / 2
    courant = speed * duration / steps / cell
    diffusion = speed * cell * (1 - courant) / 2
    np.testing.assert_allclose(wider - width, 2 * diffusion * duration, rtol=1e-3)


def halfar(r, time, rate, height=400.0, radius=4000.0):
    """Thickness of a dome on flat ground (Halfar 1983, J. Geophys. Res. 88, 6043).

    Args:
        r: Distance from its middle [m].
        time: After it had the height and radius given [yr].
        rate: Rate factor A [MPa^-3 yr^-1].
        height: At time 0 [m].
        radius: At time 0 [m].
    """
    gamma = 2 / 5 * rate * (DENSITY * GRAVITY / 1e6) ** 3
    start = (7 / 4) ** 3 * radius**4 / (18 * gamma * height**7)
    s = (start + time) / start
    inside = np.maximum(1 - (s ** (-1 / 18) * r / radius) ** (4 / 3), 0)
    return height * s ** (-1 / 9) * inside ** (3 / 7)


def test_a_dome_spreads_as_halfars_does():
    cell, rate = 200.0, 100.0
    y, x = (np.mgrid[:61, :61] - 30) * cell
    r = np.hypot(x, y)
    thickness = halfar(r, 0.0, rate)
    volume, now, end = thickness.sum(), 0.0, 40.0
    while now < end:
        mean = shallow_ice(thickness, thickness, cell, arrhenius=rate).mean
        slope = np.hypot(*slopes(thickness, cell))
        diffusivity = (mean.speed * thickness / np.maximum(slope, 1e-9)).max()
        step = min(longest_step(mean, cell, 0.3), 0.3 * cell**2 / diffusivity, end - now)
        thickness, now = conserve_mass(thickness, mean, cell, step), now + step
    np.testing.assert_allclose(thickness.sum(), volume, rtol=1e-12)
    exact = halfar(r, end, rate)
    # it has changed by much more than what the two differ by
    assert halfar(0.0, end, rate) < 0.8 * 400
    np.testing.assert_allclose(thickness[30, 30], exact[30, 30], rtol=0.02)
    inside = r < 3000
    np.testing.assert_allclose(thickness[inside], exact[inside], rtol=0.03)
    assert np.abs(thickness - exact).mean() < 0.03 * exact.mean()
    np.testing.assert_allclose(thickness, thickness.T, atol=1e-9)
    np.testing.assert_allclose(thickness, thickness[::-1], atol=1e-9)


# --- membrane stresses -------------------------------------------------------------------------


@pytest.mark.parametrize("sliding", [0.0, 10.0])
def test_in_a_slab_there_is_nothing_to_stretch_and_shallow_ice_is_right(sliding):
    thickness, surface = slab(slope=(-0.1, 0.05), thickness=150.0)
    options = {"arrhenius": 60.0, "slidingco": sliding}
    shallow = shallow_ice(thickness, surface, (50.0, 80.0), **options)
    membrane = membrane_flow(thickness, surface, (50.0, 80.0), **options)
    for name, values in shallow.named().items():
        np.testing.assert_allclose(membrane.named()[name], values, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(membrane.drag, shallow.drag, rtol=1e-4)


def slippery(shape=(141, 100), spacing=50.0, wavelength=2500.0, thickness=150.0):
    """A slab that falls along x on a bed that is slippery in bands across the flow."""
    ice, surface = slab(shape, thickness, (-0.08, 0.0), (spacing, spacing))
    x = spacing * np.arange(shape[1])
    c = 10 * (1 + np.cos(2 * np.pi * x / wavelength)) * np.ones(shape)
    return ice, surface, c


def by_bisection(speed, strain, thickness, rate, c):
    """Basal stress and mean viscosity of columns that move and stretch so, by bisection twice.

    Glen's law holds at 60 depths, with the effective stress of shear and stretching together.
    """
    depths = ((np.arange(60) + 0.5) / 60)[:, None]

    def bisect(above, low, high):
        for _ in range(40):
            middle = np.sqrt(low * high)
            is_above = above(middle)
            low, high = np.where(is_above, low, middle), np.where(is_above, middle, high)
        return np.sqrt(low * high)

    def fluidity(stress):
        def above(f):
            return f > 2 * rate * ((stress * depths) ** 2 + (2 * strain / f) ** 2)

        shape = (60, len(speed))
        return bisect(above, np.full(shape, 1e-9), np.full(shape, 1e6))

    def too_fast(stress):
        shear = thickness * (fluidity(stress) * depths**2).mean(axis=0)
        return stress * (1e3 * c * stress**2 + shear) > speed

    stress = bisect(too_fast, np.full(len(speed), 1e-6), np.full(len(speed), 10.0))
    return stress, (1 / fluidity(stress)).mean(axis=0)


def test_forces_on_a_flowline_balance_as_computed_by_other_means():
    thickness, surface, c = slippery()
    flow = membrane_flow(thickness, surface, 50.0, slidingco=c, tolerance=1e-4)
    row = slice(70, 71)
    u, c = flow.mean.x[row][0], c[row][0]
    # far from the sides nothing moves across
    assert (
        np.abs(np.gradient(flow.mean.y, 50.0, axis=0)[70]).max()
        < 0.01 * np.abs(np.gradient(u, 50)).max()
    )
    strain = np.gradient(u, 50.0)
    drag, viscosity = by_bisection(u, np.abs(strain), 150.0, 78.0, c)
    np.testing.assert_allclose(flow.drag[70], drag, rtol=0.01)
    force = 4 * 150.0 * viscosity * strain
    pull = np.gradient(force, 50.0)
    driving = DENSITY * GRAVITY / 1e6 * 150.0 * 0.08
    inside = slice(5, -5)
    assert np.abs(pull[inside]).max() > 0.2 * driving
    np.testing.assert_allclose(pull[inside] + driving, drag[inside], atol=0.05 * driving)


def random_glacier(seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:20, :25] * 100.0
    bed = 3000 - 0.2 * x + 150 * np.sin(y / 300) * np.cos(x / 400)
    thickness = np.maximum(120 - 0.05 * (np.abs(x - 1200) + np.abs(y - 950)) ** 1.05, 0)
    return thickness, bed + thickness, rng.uniform(0, 20, thickness.shape)


def test_the_bed_holds_the_glacier_as_a_whole():
    # margins are free, and what ice does to ice cancels, so drag and weight balance in the sum
    thickness, surface, c = random_glacier()
    flow = membrane_flow(thickness, surface, 100.0, slidingco=c, tolerance=1e-5)
    direction = flow.mean.scaled(flow.drag / np.maximum(flow.mean.speed, 1e-12))
    x, y = driving_stress(thickness, surface, 100.0)
    scale = np.hypot(x, y).sum()
    assert abs(direction.x.sum() - x.sum()) < 1e-3 * scale
    assert abs(direction.y.sum() - y.sum()) < 1e-3 * scale
    # though not cell by cell
    assert np.abs(flow.drag - np.hypot(x, y)).sum() > 0.1 * scale


def test_ice_on_a_slippery_spot_drags_the_ice_around_it_along():
    thickness, surface = slab((31, 31), 150.0, (-0.1, 0.0), (100.0, 100.0))
    c = np.zeros((31, 31))
    c[13:18, 13:18] = 20.0
    membrane = membrane_flow(thickness, surface, 100.0, slidingco=c).mean.speed
    shallow = shallow_ice(thickness, surface, 100.0, slidingco=c).mean.speed
    assert membrane[15, 15] < 0.9 * shallow[15, 15]
    assert membrane[15, 19] > 1.1 * shallow[15, 19]
    np.testing.assert_allclose(membrane[0], shallow[0], rtol=0.01)


def test_the_shorter_the_bands_of_the_bed_the_less_the_ice_follows_them():
    contrasts = []
    for wavelength in (5000.0, 1250.0, 500.0):
        thickness, surface, c = slippery((9, 100), 50.0, wavelength)
        speed = membrane_flow(thickness, surface, 50.0, slidingco=c).mean.speed[4, 20:-20]
        contrasts.append(np.ptp(speed) / speed.mean())
    assert contrasts[0] > 2 * contrasts[1] > 6 * contrasts[2]


def test_membrane_flow_turns_with_the_glacier_and_starts_from_any_flow():
    thickness, surface, c = random_glacier()
    flow = membrane_flow(thickness, surface, 100.0, slidingco=c, tolerance=1e-6)
    turned = membrane_flow(
        thickness.T.copy(), surface.T.copy(), 100.0, slidingco=c.T, tolerance=1e-6
    )
    most = flow.surface.speed.max()
    np.testing.assert_allclose(turned.surface.x, flow.surface.y.T, atol=1e-4 * most)
    np.testing.assert_allclose(turned.surface.y, flow.surface.x.T, atol=1e-4 * most)
    again = membrane_flow(
        thickness, surface, 100.0, slidingco=c, tolerance=1e-6, start=flow, iterations=3
    )
    np.testing.assert_allclose(again.mean.x, flow.mean.x, atol=1e-4 * most)
    assert not flow.surface.speed[thickness == 0].any()


def test_the_fluidity_is_a_root_of_its_cubic():
    rng = np.random.default_rng(0)
    a, b = np.exp(rng.uniform(-15, 5, (2, 1000)))
    root = largest_root(a, b)
    np.testing.assert_allclose(root**3, a * root**2 + b, rtol=1e-6)


def test_without_ice_nothing_moves():
    flow = membrane_flow(np.zeros((4, 5)), np.ones((4, 5)), 100.0)
    for values in flow.named().values():
        np.testing.assert_array_equal(values, np.zeros((4, 5)))


# --- in time -----------------------------------------------------------------------------------


def test_a_climate_adds_above_its_line_and_takes_below_and_warms_from_its_time_on():
    climate = Climate(3000.0, gradient=0.01, most=2.0, warming=5.0, since=100.0)
    surface = np.array([2900.0, 3000.0, 3100.0, 4000.0])
    assert climate.balance(surface, 50.0).tolist() == [-1, 0, 1, 2]
    assert climate.balance(surface, 120.0).tolist() == [-2, -1, 0, 2]


def test_glaciers_are_seen_at_the_times_asked_for_and_the_flow_only_moves_them():
    y, x = np.mgrid[:24, :20] * 100.0
    bed = 2500 + 600 * np.exp(-(((x - 950) / 500) ** 2) - ((y - 1150) / 600) ** 2)
    massif = Massif(bed, 100.0, 78.0, 5.0)
    ice = np.where(bed > 2900, 60.0, 0.0)
    # neither snow nor melt
    times = [3.0, 7.5]
    frames = list(evolve(massif, Climate(0.0, gradient=0.0), times, ice))
    assert [frame.time for frame in frames] == times
    for frame in frames:
        np.testing.assert_allclose(frame.thickness.sum(), ice.sum(), rtol=2e-3)
        exact = membrane_flow(frame.thickness, bed + frame.thickness, 100.0, slidingco=5.0)
        np.testing.assert_array_equal(frame.flow.mean.x, exact.mean.x)
    lower = bed < 2850
    assert frames[1].thickness[lower].sum() > frames[0].thickness[lower].sum() > 0


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [shallow_ice, membrane_flow])
def test_what_is_no_glacier_is_refused(made):
    thickness, surface = slab()
    with pytest.raises(GeometryError, match="different grids"):
        made(thickness, surface[1:], 50.0)
    with pytest.raises(GeometryError, match="at least 2 cells"):
        made(thickness[:1], surface[:1], 50.0)
    with pytest.raises(FieldError, match="surface holds 1 values"):
        made(thickness, np.where(np.arange(30).reshape(5, 6) == 7, np.nan, surface), 50.0)
    with pytest.raises(FieldError, match="cannot be negative"):
        made(-thickness, surface, 50.0)
    with pytest.raises(FieldError, match="`slidingco` must be"):
        made(thickness, surface, 50.0, slidingco=-1.0)
    with pytest.raises(FieldError, match=r"`arrhenius` must be .* one of shape"):
        made(thickness, surface, 50.0, arrhenius=np.ones(3))


def test_velocities_that_do_not_settle_are_told():
    thickness, surface, c = random_glacier()
    with pytest.raises(GeometryError, match="after 2 iterations"):
        membrane_flow(thickness, surface, 100.0, slidingco=c, iterations=2)
    with pytest.raises(GeometryError, match="two axes"):
        membrane_flow(thickness[None], surface[None], 100.0)
