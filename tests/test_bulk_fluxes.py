import numpy as np
import pytest
from scipy.optimize import brentq

from map2map.derived import BulkFlux
from map2map.derived.base import Box
from map2map.errors import FieldError, RecipeError
from map2map.physics.bulk_fluxes import (
    FREEZING,
    LAPSE,
    SALTY,
    Air,
    Scheme,
    Sea,
    air_density,
    saturation_humidity,
    turbulent_fluxes,
)

# NOAA's published run of COARE 3.5 over the TOGA COARE data (its test_35_data and its output): wind
# [m/s], air [°C] and relative humidity [%] at 16 m, surface [°C] less its cool skin [K]; and u*
# [m/s], stress [N/m^2], sensible and latent heat [W/m^2], upward, z/L, and 10^3 times the drag
# coefficient of neutral air at 10 m
PUBLISHED = [
    (1.9, 28.5, 73.4, 29.45 - 0.35909, 0.0690509, 0.00525963, 1.59558, 61.6984, -3.42569, 0.958805),
    (2.5, 27.5, 77.38, 29.16 - 0.3348, 0.08768, 0.00856561, 5.39515, 74.3407, -2.93467, 0.925704),
    (4.7, 27.7, 75.21, 29.15 - 0.31092, 0.151101, 0.026008, 7.04533, 121.0056, -0.84321, 0.923815),
    (5.2, 28.0, 75.56, 29.14 - 0.27793, 0.165953, 0.0314326, 5.39651, 122.368, -0.57632, 0.942704),
    (9.9, 24.7, 90.3, 29.24 - 0.264027, 0.365407, 0.154412, 56.2608, 233.657, -0.271302, 1.32313),
]


def neutral(wind, scheme=None, sst=288.0):
    """Fluxes of air that is as warm and moist as the surface."""
    scheme = scheme or Scheme()
    temperature = sst - LAPSE * scheme.air_height
    humidity = SALTY * saturation_humidity(sst, 101325.0)
    return turbulent_fluxes(Air(wind, 0.0, temperature, humidity), Sea(sst), scheme)


@pytest.mark.parametrize("row", PUBLISHED)
def test_fluxes_are_those_of_the_published_run(row):
    wind, air, moisture, skin, friction, stress, sensible, latent, stability, drag = row
    # its relative humidity is one of vapor pressure [hPa]
    vapor = moisture / 100 * 6.1121 * np.exp(17.502 * air / (air + 240.97)) * 1.00419
    found = turbulent_fluxes(
        Air(wind, 0.0, air + FREEZING, 0.622 * vapor / (1008 - 0.378 * vapor), 100800.0),
        Sea(skin + FREEZING),
        Scheme("3.5", wind_height=16, air_height=16),
    )
    np.testing.assert_allclose(found.friction_velocity, friction, rtol=1e-3)
    np.testing.assert_allclose(found.stress_x, stress, rtol=2e-3)
    np.testing.assert_allclose(found.sensible, -sensible, rtol=2e-3)
    np.testing.assert_allclose(found.latent, -latent, rtol=2e-3)
    np.testing.assert_allclose(found.stability, stability, rtol=1e-2)
    # gusts add to u*, but not to the neutral wind
    humidity = 0.622 * vapor / (1008 - 0.378 * vapor)
    gusty = air_density(air + FREEZING, humidity, 100800.0) * friction**2 / stress
    neutral_drag = (found.friction_velocity / gusty / found.neutral_wind) ** 2
    np.testing.assert_allclose(1e3 * neutral_drag, drag, rtol=3e-3)


@pytest.mark.parametrize("height", [3.0, 10.0, 40.0])
def test_in_neutral_air_the_wind_is_exactly_the_logarithm_of_the_height(height):
    wind = np.array([3.0, 8.0, 15.0, 25.0])
    found = neutral(wind, Scheme(wind_height=height, gusts=False, iterations=60))
    np.testing.assert_allclose(found.stability, 0, atol=1e-12)
    np.testing.assert_allclose(found.sensible, 0, atol=1e-9)
    np.testing.assert_allclose(found.latent, 0, atol=1e-9)
    # the roughness that gives this u*, of Charnock and of smooth flow
    u10 = found.neutral_wind
    rough = 10 / np.exp(0.4 * u10 / found.friction_velocity)
    np.testing.assert_allclose(found.friction_velocity / 0.4 * np.log(height / rough), wind)
    charnock = 0.0017 * np.minimum(u10, 19) - 0.005
    celsius = 288.0 - 0.0196 - FREEZING
    nu = 1.326e-5 * (1 + 6.542e-3 * celsius + 8.301e-6 * celsius**2 - 4.84e-9 * celsius**3)
    expected = charnock * found.friction_velocity**2 / 9.81 + 0.11 * nu / found.friction_velocity
    np.testing.assert_allclose(rough, expected, rtol=1e-6)


CHARNOCK = {
    "3.0": lambda u: min(max(0.011, 0.011 + (u - 10) / 8 * 0.007), 0.018),
    "3.5": lambda u: 0.017 * min(u, 19) / 10 - 0.005,
}


@pytest.mark.parametrize("version", [*CHARNOCK])
@pytest.mark.parametrize("wind", [4.0, 9.0, 14.0, 22.0])
def test_the_neutral_drag_coefficient_solves_its_equation(version, wind):
    # C = (k / ln(10 / z0))^2 with z0 = a(U) C U^2 / g + 0.11 nu / (sqrt(C) U)
    def rest(drag):
        rough = CHARNOCK[version](wind) * drag * wind**2 / 9.81
        rough += 0.11 * 1.46e-5 / (np.sqrt(drag) * wind)
        return (0.4 / np.log(10 / rough)) ** 2 - drag

    found = neutral(np.array(wind), Scheme(version, gusts=False, iterations=60))
    drag = (found.friction_velocity / wind) ** 2
    np.testing.assert_allclose(drag, brentq(rest, 1e-4, 1e-2), rtol=1e-3)


def test_without_wind_there_is_no_stress_but_convection_takes_heat():
    found = turbulent_fluxes(Air(0.0, 0.0, 290.0, 0.008), Sea(295.0))
    assert found.stress_x == 0
    assert found.stress_y == 0
    assert found.sensible < -1
    assert found.latent < -10
    still = turbulent_fluxes(Air(0.0, 0.0, 290.0, 0.008), Sea(295.0), Scheme(gusts=False))
    for values in vars(still).values():
        assert np.isfinite(values)
    np.testing.assert_allclose(still.sensible, 0, atol=1e-3)


def test_heat_goes_from_warm_to_cold_and_water_from_wet_to_dry():
    dry, wet = 0.002, 0.02
    cold_sea = turbulent_fluxes(Air(8.0, 0.0, 293.0, dry), Sea(285.0))
    warm_sea = turbulent_fluxes(Air(8.0, 0.0, 285.0, wet), Sea(293.0))
    assert cold_sea.sensible > 0 > cold_sea.latent
    assert warm_sea.sensible < 0 < warm_sea.latent
    # water takes the heat of its evaporation along
    np.testing.assert_allclose(
        cold_sea.latent, -(2.501e6 - 2370 * (285 - FREEZING)) * cold_sea.evaporation
    )
    assert cold_sea.stability > 0
    assert warm_sea.stability < 0 or warm_sea.sensible < 0


def test_convection_raises_and_stability_lowers_the_stress():
    stresses = [
        float(turbulent_fluxes(Air(6.0, 0.0, t, 0.006), Sea(288.0)).stress_x)
        for t in (280.0, 287.0, 296.0)
    ]
    assert stresses[0] > 1.05 * stresses[1] > 1.2 * stresses[2]


def test_a_wind_that_turns_turns_the_stress_and_leaves_heat_alone():
    rng = np.random.default_rng(0)
    u, v, uo, vo = rng.normal(size=(4, 20)) * np.array([[8], [8], [0.5], [0.5]])
    temperature, humidity = rng.uniform(280, 295, 20), rng.uniform(0.004, 0.01, 20)
    cos, sin = np.cos(0.7), np.sin(0.7)
    still = turbulent_fluxes(Air(u, v, temperature, humidity), Sea(288.0, uo, vo))
    turned = turbulent_fluxes(
        Air(cos * u - sin * v, sin * u + cos * v, temperature, humidity),
        Sea(288.0, cos * uo - sin * vo, sin * uo + cos * vo),
    )
    np.testing.assert_allclose(turned.stress_x, cos * still.stress_x - sin * still.stress_y)
    np.testing.assert_allclose(turned.stress_y, sin * still.stress_x + cos * still.stress_y)
    np.testing.assert_allclose(turned.latent, still.latent)
    # the stress is along the wind relative to the current
    np.testing.assert_allclose(still.stress_x * (v - vo), still.stress_y * (u - uo), atol=1e-12)


def test_a_current_along_with_the_wind_counts_as_less_wind():
    moving = turbulent_fluxes(Air(8.0, 0.0, 287.0, 0.008), Sea(289.0, 1.5))
    still = turbulent_fluxes(Air(6.5, 0.0, 287.0, 0.008), Sea(289.0))
    np.testing.assert_allclose(moving.stress_x, still.stress_x)


def test_young_waves_are_rougher():
    air, age = Air(10.0, 0.0, 287.0, 0.008), np.array([3.0, 6.0, 12.0])
    stress = turbulent_fluxes(air, Sea(288.0, wave_speed=age)).stress_x
    assert (np.diff(stress) < 0).all()
    assert stress[0] / stress[2] > 1.15


@pytest.mark.parametrize("warmer", [-4.0, -1.0, 0.5, 3.0, 8.0])
def test_ten_iterations_are_enough(warmer):
    wind = np.linspace(0.3, 28, 60)
    air, sea = Air(wind, 0.0, 288.0 - warmer, 0.007), Sea(288.0)
    found = turbulent_fluxes(air, sea)
    converged = turbulent_fluxes(air, sea, Scheme(iterations=300))
    np.testing.assert_allclose(found.sensible, converged.sensible, atol=0.2, rtol=0.01)
    np.testing.assert_allclose(found.stress_x, converged.stress_x, atol=2e-4, rtol=0.01)


def test_cells_do_not_see_each_other_and_land_stays_land():
    rng = np.random.default_rng(1)
    wind, sst = rng.normal(0, 8, (5, 6)), rng.uniform(283, 293, (5, 6))
    sst[2, 3] = np.nan
    found = turbulent_fluxes(Air(wind, 1.0, 287.0, 0.008), Sea(sst))
    assert np.argwhere(np.isnan(found.latent)).tolist() == [[2, 3]]
    alone = turbulent_fluxes(Air(wind[4, 5], 1.0, 287.0, 0.008), Sea(sst[4, 5]))
    np.testing.assert_allclose(found.latent[4, 5], alone.latent)


@pytest.mark.parametrize("version", ["3.0", "3.5"])
def test_no_weather_is_too_wild(version):
    wind, air, sea = np.meshgrid([0, 1e-6, 0.5, 2, 10, 70.0], [230, 270, 315.0], [271, 290, 308.0])
    for top in (50.0, 600.0, 4000.0):
        found = turbulent_fluxes(
            Air(wind, 0.0, air, 1e-4), Sea(sea), Scheme(version, boundary_layer=top)
        )
        for values in vars(found).values():
            assert np.isfinite(values).all()
        assert (found.stress_x >= 0).all()
        assert (found.sensible[sea < air - 1] > 0).all()
        assert (found.sensible[sea > air + 1] < 0).all()


def test_saturated_air_and_density_are_those_of_tables():
    # over water at 20 °C vapor has 23.4 hPa; dry air at 15 °C and 1013.25 hPa 1.225 kg/m^3
    vapor = 23.39
    np.testing.assert_allclose(
        saturation_humidity(293.15, 101325.0), 0.622 * vapor / (1013.25 - 0.378 * vapor), rtol=6e-3
    )
    np.testing.assert_allclose(air_density(288.15, 0.0, 101325.0), 1.225, rtol=1e-3)


def test_unknown_versions_and_heights_are_refused():
    with pytest.raises(RecipeError, match=r"'3\.7'.*3\.5"):
        Scheme("3.7")
    with pytest.raises(RecipeError, match="positive"):
        Scheme(wind_height=0.0)


class TestBulkFluxOfFields:
    names = ("u", "v", "t", "q", "sst", "p", "uo", "vo")

    def fields(self):
        rng = np.random.default_rng(2)
        means = (4.0, -3.0, 286.0, 0.007, 288.0, 101000.0, 0.1, 0.2)
        return {
            name: mean + 0.003 * mean * rng.normal(size=(1, 4, 5))
            for name, mean in zip(self.names, means, strict=True)
        }

    def test_it_is_what_the_formulae_give(self):
        fields = self.fields()
        u, v, t, q, sst, p, uo, vo = (fields[name][0] for name in self.names)
        expected = turbulent_fluxes(Air(u, v, t, q, p), Sea(sst, uo, vo), Scheme("3.0", 16, 12))
        derived = BulkFlux(
            ["latent", "stress_y"], "u", "v", "t", "q", "sst", "p", ["uo", "vo"], (16, 12), "3.0"
        )
        assert (derived.channels, derived.margin) == (2, 0)
        assert derived.needs == ("u", "v", "t", "q", "sst", "p", "uo", "vo")
        found = derived.compute(fields, Box((1.0, 1.0)))
        np.testing.assert_allclose(found, [expected.latent, expected.stress_y])

    def test_what_is_the_same_everywhere_may_be_a_number(self):
        fields = self.fields()
        derived = BulkFlux("sensible", "u", "v", "t", 0.008, "sst")
        assert derived.needs == ("u", "v", "t", "sst")
        whole = fields | {"q": np.full((1, 4, 5), 0.008), "p": np.full((1, 4, 5), 101325.0)}
        expected = BulkFlux("sensible", "u", "v", "t", "q", "sst", "p").compute(whole, Box((1.0,)))
        np.testing.assert_allclose(derived.compute(fields, Box((1.0,))), expected)

    def test_degrees_celsius_and_unknown_names_are_refused(self):
        fields = self.fields()
        fields["sst"] -= 273.15
        with pytest.raises(FieldError, match=r"in K, but 'sst'"):
            BulkFlux("latent", "u", "v", "t", "q", "sst").compute(fields, Box((1.0,)))
        with pytest.raises(RecipeError, match="latent"):
            BulkFlux("latnt", "u", "v", "t", "q", "sst")
        with pytest.raises(RecipeError, match="two fields"):
            BulkFlux("latent", "u", "v", "t", "q", "sst", current=["uo"])
