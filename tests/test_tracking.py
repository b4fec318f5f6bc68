"""Figures of the training do not slow it down."""

from types import SimpleNamespace

import pytest

from map2map import tracking
from map2map.fields import Field, FieldSet
from map2map.tracking import Tracker


@pytest.fixture
def drawn_in(monkeypatch):
    """The epochs whose figures are drawn, by the seconds that an epoch and a figure take."""

    def run(epochs, each, figure, every=1):
        clock, drawn = [1000.0], []

        def draw(writer, task, split, example, epoch):
            clock[0] += figure
            drawn.append(epoch)

        monkeypatch.setattr(tracking.time, "perf_counter", lambda: clock[0])
        monkeypatch.setattr(Tracker, "_writer", staticmethod(lambda trainer: object()))
        monkeypatch.setattr(Tracker, "_figures", staticmethod(draw))
        tracker = Tracker(figures=every)
        targets = FieldSet((Field("y"),))
        task = SimpleNamespace(examples={"train": ()}, built=SimpleNamespace(targets=targets))
        for epoch in range(epochs):
            trainer = SimpleNamespace(current_epoch=epoch, max_epochs=epochs)
            clock[0] += each
            tracker._draw(trainer, task, "train")
        return drawn

    return run


def test_figures_are_drawn_as_often_as_asked_where_they_take_little_time(drawn_in):
    assert drawn_in(10, each=100, figure=1) == list(range(1, 11))
    assert drawn_in(10, each=100, figure=1, every=4) == [1, 4, 8, 10]
    assert drawn_in(10, each=100, figure=1, every=0) == []


def test_figures_take_no_more_than_a_hundredth_of_the_time_but_for_the_first_and_last(drawn_in):
    epochs = 1000
    drawn = drawn_in(epochs, each=1, figure=2)
    assert (drawn[0], drawn[-1]) == (1, epochs)
    assert 3 < len(drawn) <= 2 + epochs / 100 / 2
