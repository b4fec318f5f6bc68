"""Names ↔ channels, and what a field declares."""

import json

import pytest

from map2map.errors import FieldError
from map2map.fields import Component, Field, FieldSet


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


def vector_of(*axes, vector="v"):
    return [
        Field(f"c{i}", channels=1, component=Component(vector, axis)) for i, axis in enumerate(axes)
    ]


def test_fields_make_up_a_vector_in_the_order_of_the_axes():
    # u along x, the last axis, comes first, as ice flow has it; another field is between them
    u, v = vector_of(1, 0)
    fields = FieldSet((u, Field("h", "m", channels=2), v))
    assert fields.vectors == ((3, 0),)
    assert list(fields.with_vectors().values()) == [("c0",), ("h",), ("c1",), ("c1", "c0")]
    assert [f.kind for f in fields.with_vectors()][-1] == "vector"
    again = FieldSet.from_dicts(json.loads(json.dumps(fields.as_dicts())))
    assert again == fields


def test_a_vector_of_several_fields_has_one_for_each_axis():
    for axes in ((0,), (0, 0), (1, 2), (0, 2)):
        with pytest.raises(FieldError, match="there must be one field for each axis"):
            FieldSet(tuple(vector_of(*axes)))
    with pytest.raises(FieldError, match="one component of 'v', so it has one channel"):
        Field("a", component=Component("v", 0)).resolved(2, 2)


def test_a_component_alone_is_a_scalar():
    u, v = vector_of(1, 0)
    fields = FieldSet((u, v, Field("h", "m", channels=1)))
    assert fields.subset(["c0", "h"]).vectors == ()
    assert fields.subset(["c1", "c0"]).vectors == ((0, 1),)


# --- labels and parameters

TWO = Field("g", kind="label", classes=("newton", "gr"))
THREE = Field("k", kind="label", classes=("a", "b", "c"))
MASS = Field("m", kind="parameter", units="eV")


def test_a_label_of_two_classes_is_one_number_and_of_more_one_each():
    fields = FieldSet(tuple(f.resolved(9, 2) for f in (TWO, THREE, MASS)))
    assert [field.channels for field in fields] == [1, 3, 1]
    assert fields.of_run
    assert fields.slices == {"g": slice(0, 1), "k": slice(1, 4), "m": slice(4, 5)}
    assert [field.units for field in fields] == ["1", "1", "eV"]
    assert fields.vectors == ()


@pytest.mark.parametrize(
    "how",
    [
        {"kind": "label"},
        {"kind": "label", "classes": ("a",)},
        {"kind": "label", "classes": ("a", "a")},
        {"kind": "parameter", "classes": ("a", "b")},
        {"classes": ("a", "b")},
    ],
)
def test_only_labels_have_classes_and_these_differ(how):
    with pytest.raises(FieldError, match="two or more classes, all different"):
        Field("g", **how)


def test_what_is_told_of_runs_and_of_cells_is_not_mixed():
    with pytest.raises(FieldError, match="m are told of whole runs"):
        FieldSet((MASS, Field("rho")))


def test_labels_survive_a_card():
    fields = FieldSet(tuple(f.resolved(1, 2) for f in (TWO, MASS)))
    assert FieldSet.from_dicts(json.loads(json.dumps(fields.as_dicts()))) == fields
