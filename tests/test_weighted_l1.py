"""Absolute errors with weights by field, against sums written out."""

import numpy as np
import pytest
import torch

from map2map.data import FieldData
from map2map.errors import GeometryError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.losses import WeightedL1
from map2map.models import ConvNet
from map2map.preparation import Options
from map2map.task import Task

UPPER = {"Z": 3.0, "Q": 0.6}
SURFACE = {"T2M": 3.0, "U10": 0.77}
TARGETS = FieldSet(
    tuple(Field(name, channels=n) for name, n in (("Z", 3), ("U10", 1), ("Q", 3), ("T2M", 1)))
)


def both(dtype=torch.float64, channels=8):
    draw = torch.Generator().manual_seed(0)
    return (torch.randn(2, channels, 4, 5, generator=draw).to(dtype) for _ in range(2))


def test_it_is_the_weighted_sum_of_mean_errors_of_fields_in_the_order_of_the_targets():
    loss = WeightedL1(UPPER, surface=SURFACE)
    loss.take_fields(TARGETS)
    output, target = both()
    expected = 0.0
    for name, first, last in (("Z", 0, 3), ("U10", 3, 4), ("Q", 4, 7), ("T2M", 7, 8)):
        errors = [
            abs(float(output[b, c, i, j] - target[b, c, i, j]))
            for b in range(2) for c in range(first, last) for i in range(4) for j in range(5)
        ]  # fmt: skip
        weight = UPPER[name] if name in UPPER else 0.25 * SURFACE[name]
        expected += weight * sum(errors) / len(errors)
    torch.testing.assert_close(float(loss(output, target)), expected)


def test_told_no_fields_it_takes_channels_in_the_order_of_the_weights():
    output, target = both()
    given = WeightedL1(UPPER, surface=SURFACE, surface_share=0.5, channels=[3, 3, 1, 1])
    order = [0, 1, 2, 4, 5, 6, 7, 3]
    told = WeightedL1(UPPER, surface=SURFACE, surface_share=0.5)
    told.take_fields(TARGETS)
    torch.testing.assert_close(given(output[:, order], target[:, order]), told(output, target))


def test_a_field_of_weight_zero_does_not_move_the_network():
    loss = WeightedL1({"a": 1.0, "b": 0.0}, channels=[2, 1])
    output, target = both(channels=3)
    output.requires_grad_()
    loss(output, target).backward()
    assert (output.grad[:, 2] == 0).all()
    # of one weight, the sign over the number of values
    torch.testing.assert_close(output.grad[:, :2].abs(), torch.full((2, 2, 4, 5), 1 / 80).double())


def test_half_precision_is_summed_in_single():
    loss = WeightedL1({"a": 1.0}, channels=[1])
    output = torch.full((1, 1, 512, 512), 1.0, dtype=torch.bfloat16)
    assert loss(output, torch.zeros_like(output)) == 1.0


def test_fields_and_weights_that_do_not_meet_are_refused_by_name():
    with pytest.raises(RecipeError, match="no weight for U10, T2M"):
        WeightedL1(UPPER).take_fields(TARGETS)
    with pytest.raises(RecipeError, match=r"weighs 'TZM', which is no target; did you mean 'T2M'"):
        WeightedL1(UPPER, surface={"TZM": 1.0, "U10": 1.0}).take_fields(TARGETS)
    with pytest.raises(RecipeError, match="Z have two weights"):
        WeightedL1(UPPER, surface={"Z": 1.0})
    for wrong in ({"a": -1.0, "b": 1.0}, {"a": float("nan"), "b": 1.0}, {"a": 0.0}, {}):
        with pytest.raises(RecipeError, match="weights must be 0 or more"):
            WeightedL1(wrong)
    with pytest.raises(RecipeError, match="`channels` has 1 numbers, but there are weights of 2"):
        WeightedL1(UPPER, channels=[3])


def test_tensors_that_do_not_fit_are_refused():
    output, target = both()
    with pytest.raises(RecipeError, match="does not know which channels are those of Z, Q"):
        WeightedL1(UPPER)(output, target)
    loss = WeightedL1(UPPER, channels=[3, 3])
    with pytest.raises(GeometryError, match="weights are of 6 channels"):
        loss(output, target)
    with pytest.raises(GeometryError, match="the target"):
        loss(output[:, :6], target[:1, :6])


def task_of(loss, tmp_path, measures=None):
    rng = np.random.default_rng(0)
    for name, channels in (("x", 1), ("Z", 2), ("T2M", 1)):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(channels, 8, 8)).astype(np.float32))
    targets = [Field("Z", kind="scalar"), Field("T2M")]
    task = Task([Field("x")], targets, ConvNet, loss=loss, options=Options(measures=measures))
    return task, FieldData({name: str(tmp_path / f"{name}.npy") for name in ("x", "Z", "T2M")})


def test_a_training_tells_it_the_channels_of_its_fields(tmp_path):
    loss, beside = (WeightedL1({"Z": 3.0, "T2M": w}) for w in (0.5, 0.7))
    task, data = task_of(loss, tmp_path, {"beside": beside})
    task.prepare(data)
    errors = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1)
    assert float(loss(errors, torch.zeros(1, 3, 1))) == 3.0 * 1.5 + 0.5 * 4
    assert float(beside(errors, torch.zeros(1, 3, 1))) == pytest.approx(3.0 * 1.5 + 0.7 * 4)
    task, data = task_of(WeightedL1({"Z": 3.0}), tmp_path)
    with pytest.raises(RecipeError, match="no weight for T2M"):
        task.prepare(data)
