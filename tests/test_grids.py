"""What a grid says of its edges."""

import pytest

from map2map.errors import GeometryError
from map2map.grids import Domain, Grid


def test_one_value_stands_for_all_axes():
    assert Grid((2, 3), periodic=True).beyond == ("periodic", "periodic")
    assert Grid((2, 3), periodic=(True, False), pad="edge").beyond == ("periodic", "edge")


def test_cells_of_a_finer_grid_are_smaller():
    domain = Domain(ndim=2, spacing=[2.0, 4.0])
    assert domain.grid((4, 4)).spacing == (2.0, 4.0)
    assert domain.grid((8, 8), 2).spacing == (1.0, 2.0)
    assert Domain(spacing=2.0).grid((4, 4, 4)).spacing == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"shape": (0, 2)}, "at least one cell"),
        ({"shape": ()}, "at least one cell"),
        ({"shape": (2, 2), "periodic": (True,)}, "`periodic` of a 2-D grid"),
        ({"shape": (2, 2), "spacing": (1, 2, 3)}, "`spacing` of a 2-D grid"),
        ({"shape": (2,), "pad": "mirror"}, "unknown pad 'mirror'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, match):
    with pytest.raises(GeometryError, match=match):
        Grid(**arguments)
