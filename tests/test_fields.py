"""Names ↔ channels, and what a field declares."""

import pytest

from map2map.errors import FieldError
from map2map.fields import Field, FieldSet


def test_slices_cover_the_channels_once_in_order():
    fields = FieldSet((Field("v", channels=3), Field("rho", channels=1), Field("w", channels=2)))
    covered = [c for part in fields.slices.values() for c in range(part.start, part.stop)]
    assert covered == list(range(fields.channels)) == list(range(6))
    assert fields.names == ("v", "rho", "w")


def test_a_kind_is_declared_and_only_defaults_to_map2maps_guess():
    assert Field("a").resolved(3, 3).kind == "vector"
    assert Field("a").resolved(1, 1).kind == "scalar"
    assert Field("a").resolved(2, 3).kind == "scalar"
    assert Field("a", kind="scalar").resolved(3, 3).kind == "scalar"


def test_only_vectors_are_vectors():
    fields = FieldSet(tuple(f.resolved(2, 2) for f in (Field("u", kind="scalar"), Field("v"))))
    assert fields.vectors == ((2, 3),)


def test_files_that_contradict_the_declaration_are_refused():
    with pytest.raises(FieldError, match="declared with 2 channels"):
        Field("a", channels=2).resolved(3, 3)
    with pytest.raises(FieldError, match="declared a vector"):
        Field("a", kind="vector").resolved(1, 3)


def test_names_are_unique_and_looked_up_with_their_neighbors():
    with pytest.raises(FieldError, match="more than once"):
        FieldSet((Field("a"), Field("a")))
    with pytest.raises(FieldError, match="did you mean 'density'"):
        FieldSet((Field("density"),))["densty"]


def test_a_card_holds_everything():
    fields = FieldSet((Field("v", "km/s", "vector", 3), Field("rho", channels=1)))
    assert FieldSet.from_dicts(fields.as_dicts()) == fields
