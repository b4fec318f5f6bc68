"""Forms of recipes: Lightning's keys, variables, versions."""

import pytest

from map2map.commands.recipe_forms import FORMAT, settled, settled_arguments
from map2map.errors import RecipeError

ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}}
STEP = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 3}}


def test_lightnings_keys_go_where_they_belong():
    recipe = {
        "optimizer": ADAM,
        "lr_scheduler": STEP,
        "callbacks": [{"class_path": "A"}],
        "logger": False,
        "trainer": {"max_epochs": 2},
        "model": {"schedule": {"interval": "step"}},
    }
    before = str(recipe)
    assert settled(recipe) == {
        "trainer": {"max_epochs": 2, "callbacks": [{"class_path": "A"}], "logger": False},
        "model": {"schedule": {"interval": "step", "scheduler": STEP}, "optimizer": ADAM},
    }
    assert str(recipe) == before


def test_a_key_in_both_places_is_refused():
    with pytest.raises(RecipeError, match=r"logger and trainer\.logger are the same"):
        settled({"logger": False, "trainer": {"logger": True}})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--optimizer", "A"], ["--model.optimizer", "A"]),
        (["--optimizer.init_args.lr=3"], ["--model.optimizer.init_args.lr=3"]),
        (["--callbacks+=B"], ["--trainer.callbacks+=B"]),
        (["--logger", "false", "rest"], ["--trainer.logger", "false", "rest"]),
        (["--lr_scheduler.class_path", "C"], ["--model.schedule.scheduler.class_path", "C"]),
        (["--loggers", "optimizer"], ["--loggers", "optimizer"]),
    ],
)
def test_options_likewise(given, expected):
    assert settled_arguments(given) == expected


@pytest.mark.parametrize(
    ("number", "said"),
    [(FORMAT + 1, "newer one"), (0, "whole number"), ("2", "whole number"), (1.0, "whole number")],
)
def test_a_recipe_of_another_format_is_refused(number, said):
    with pytest.raises(RecipeError, match=said):
        settled({"format": number})
    assert settled({"format": FORMAT, "model": {}}) == {"model": {}}


@pytest.mark.parametrize(
    "recipe", [{"trainer": 5, "logger": False}, {"model": "a", "optimizer": ADAM}]
)
def test_keys_that_should_hold_others_and_do_not_are_refused(recipe):
    with pytest.raises(RecipeError, match="must be keys with values"):
        settled(recipe)
    with pytest.raises(RecipeError, match="whole number"):
        settled({"format": True})
