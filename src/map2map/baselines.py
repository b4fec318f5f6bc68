"""What an emulator must beat: doing nothing, the mean of the training set, and any field one names.

A baseline is a function of a run's number and inputs that gives predictions of targets by name.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from map2map.derived import Derived
from map2map.errors import FieldError, GeometryError, M2MError, near_names
from map2map.fields import Field, FieldSet, field_channels
from map2map.grids import Domain
from map2map.patterns import learnt_files
from map2map.readers import resolve
from map2map.runs import Files, Patterns, Runs
from map2map.sources import open_source
from map2map.typing import Array, Shape
from map2map.windows import Window, slabs

__all__ = [
    "Baseline",
    "Means",
    "alike",
    "computed",
    "constant",
    "from_training",
    "identity",
    "named",
    "read_field",
    "training_files",
]

log = logging.getLogger(__name__)

Baseline = Callable[[int, Mapping[str, Array]], Mapping[str, Array]]

CELLS = 1 << 24
"""Numbers of a training run that are read at a time."""


def read_field(runs: Runs, name: str, run: int, shape: Shape) -> NDArray[np.float32]:
    """A whole field of a run, shape (channel, *space)."""
    source, variable = runs.source(name, run)
    values = np.empty((source.stored(variable).channels, *shape), np.float32)
    source.read(variable, Window.whole(shape), values, runs.domain.grid(shape))
    source.release()
    return values


def same_arrays(runs: Runs) -> dict[str, str]:
    """For each target that is a later frame of an input's array, that input: what persists."""
    first, arrays = runs.runs[0], {}
    frames = {name: first.later.get(name, first.frame or 0) for name in runs.inputs.names}
    for name in sorted(frames, key=frames.__getitem__):
        # of several frames the latest
        reader, variable = runs.source(name, 0)
        arrays[reader.path, variable] = name
    found = {}
    for name, frame in first.later.items():
        reader, variable = runs.source(name, 0)
        partner = arrays.get((reader.path, variable))
        if partner is not None and name in runs.targets.names and frames[partner] < frame:
            found[name] = partner
    return found


def identity(
    inputs: FieldSet,
    targets: FieldSet,
    scale_factor: int = 1,
    earlier: Mapping[str, str] | None = None,
    persistent: Mapping[str, float] | None = None,
) -> tuple[dict[str, str], Baseline]:
    """Each target is predicted by an input of the same units, kind and channels, if there is one.

    Of several, the one of the same name is taken, or the only one whose name has the target's
    between underscores (``bulk_tauy`` for ``tauy``); where names do not tell, there is
    none. Of a later frame, its earlier.

    Args:
        inputs: Fields that the emulator takes.
        targets: Fields that it gives.
        scale_factor: Target cells per input cell and axis; unless 1, the grids differ.
        earlier: For targets that are later frames, the inputs that are (`same_arrays`).
        persistent: For targets that are changes, what they are where nothing changes.

    Returns:
        The input, or number, for each target that has one, and the baseline.
    """
    still = {
        name: np.full(field_channels(targets[name]), value, np.float32)
        for name, value in (persistent or {}).items()
    }
    partners = dict(earlier or {})
    for target, name in (alike(inputs, targets) if scale_factor == 1 else {}).items():
        if target not in still:
            partners.setdefault(target, name)

    def predict(run: int, fields: Mapping[str, Array]) -> Mapping[str, Array]:
        del run
        return still | {target: fields[name] for target, name in partners.items()}

    return {**{name: str(value) for name, value in (persistent or {}).items()}, **partners}, predict


def alike(inputs: FieldSet, targets: FieldSet) -> dict[str, str]:
    """For targets that have one, the input that is the same quantity; see `identity`."""
    found = {}
    for target in targets:
        same = [field.name for field in inputs if _comparable(field, target)]
        rivals = [other for other in targets if _comparable(other, target)]
        named = [name for name in same if f"_{target.name}_" in f"_{name}_"]
        if target.name in same:
            named = [target.name]
        elif len(same) == len(rivals) == 1:
            named = same
        if len(named) == 1:
            found[target.name] = named[0]
    return found


def _comparable(one: Field, other: Field) -> bool:
    """Whether two fields can be the same quantity."""
    return (one.units, one.kind, one.channels) == (other.units, other.kind, other.channels)


def constant(values: Mapping[str, Array]) -> Baseline:
    """The same for every run: numbers of shape (channel,), or whole fields."""

    def predict(run: int, fields: Mapping[str, Array]) -> Mapping[str, Array]:
        del run, fields
        return values

    return predict


def named(
    places: Mapping[str, Mapping[str, Files]], patterns: Patterns, like: Runs
) -> dict[str, Baseline]:
    """Fields in files as predictions.

    Args:
        places: For each baseline, for each target that it predicts, where its files are.
        patterns: Where the files of the emulator's own fields are; the baselines' are paired with
            them.
        like: The runs of those.

    Raises:
        FieldError: If the field is no target, or has other channels.
        SourceError: If files are missing or do not correspond.
        GeometryError: If shapes differ.
    """
    targets = like.targets
    labels = labels_of(places, targets)
    found = Runs(
        list(like.inputs),
        [
            *targets,
            *(replace(targets[target], name=label) for (_, target), label in labels.items()),
        ],
        {
            **patterns,
            **{label: variable_of(places[n][t], t) for (n, t), label in labels.items()},
        },
        like.domain,
        scale_factor=like.scale_factor,
        derived=like.derived,
        styles=list(like.styles),
    )
    found = found if like.chosen is None else found.some(like.chosen)
    return {name: reading(found, {t: labels[name, t] for t in places[name]}) for name in places}


def computed(
    formulas: Mapping[str, Mapping[str, Derived]], patterns: Patterns, like: Runs
) -> dict[str, Baseline]:
    """Derived fields as predictions.

    Args:
        formulas: For each baseline, for each target that it predicts, how it is computed from the
            emulator's fields and what they are derived from.
        patterns: Where the files of those are.
        like: The runs of those.

    Raises:
        FieldError: If the field is no target, has other channels, or a formula needs others.
        GeometryError: If the emulator's targets are on a finer grid, or the cell size is needed and
            not known.
    """
    targets = like.targets
    labels = labels_of(formulas, targets)
    if like.scale_factor != 1:
        raise GeometryError(
            f"{', '.join(formulas)} would be computed on the grid of the inputs, but targets have "
            f"{like.scale_factor} cells for one of them; compute the fields before, and name their "
            f"files (--baseline)"
        )
    for (name, target), label in labels.items():
        if formulas[name][target].channels != field_channels(targets[target]):
            raise FieldError(
                f"the baseline {label!r} has {formulas[name][target].channels} channels, but the "
                f"target {field_channels(targets[target])}"
            )
    made = {label: formulas[name][target] for (name, target), label in labels.items()}
    found = Runs(
        list(like.inputs),
        [
            *targets,
            *(replace(targets[target], name=label) for (_, target), label in labels.items()),
        ],
        patterns,
        like.domain,
        derived={**like.derived, **made},
        styles=list(like.styles),
    )
    found = found if like.chosen is None else found.some(like.chosen)
    return {name: reading(found, {t: labels[name, t] for t in formulas[name]}) for name in formulas}


def labels_of(
    baselines: Mapping[str, Mapping[str, Any]], targets: FieldSet
) -> dict[tuple[str, str], str]:
    """A name for each field that is predicted, by baseline and target.

    Raises:
        FieldError: If one is no target.
    """
    for name, fields in baselines.items():
        for target in fields:
            if target not in targets.names:
                raise FieldError(
                    f"the baseline {name!r} predicts {target!r}, which is no target of the "
                    f"emulator{near_names(target, targets.names)}"
                )
    return {(name, target): f"{name}:{target}" for name in baselines for target in baselines[name]}


def reading(runs: Runs, labels: Mapping[str, str]) -> Baseline:
    """Predicts targets by fields that are read, named by ``labels``."""

    def predict(run: int, fields: Mapping[str, Array]) -> Mapping[str, Array]:
        del fields
        shape = tuple(n * runs.scale_factor for n in runs.shape_of(run))
        return {target: read_field(runs, label, run, shape) for target, label in labels.items()}

    return predict


def variable_of(files: Files, target: str) -> Files:
    """The files of a baseline, with the variable named as the target if they have that."""
    if files.variable is None:
        fields = open_source(files.paths(target)[0]).fields
        if len(fields) > 1 and target in fields:
            return replace(files, variable=target)
    return files


def training_files(
    record: Mapping[str, Any], targets: FieldSet, derived: Mapping[str, Derived] | None = None
) -> dict[str, Files]:
    """Where the training files of the targets are, from an emulator's card.

    Of targets that are computed, those of what they are computed from.

    Raises:
        FieldError: If the card does not say, or files are not there any more, or others are.
    """
    runs = record.get("files", {}).get("train", [])
    learnt, found = learnt_files(record), {}
    # one field may say for all of which dates frames are
    dates = {key: wanted for files in learnt.values() for key, wanted in files.dates.items()}
    for name in resolve(targets.names, derived or {})[1]:
        entries = [run[name] for run in runs if name in run]
        if not entries:
            raise FieldError("the emulator's card does not name its training files")
        for entry in entries:
            path = Path(entry["path"])
            if not path.exists():
                raise FieldError(f"the training file {path} is not there")
            if "bytes" in entry and path.stat().st_size != entry["bytes"]:
                raise FieldError(f"{path} is not the file of the training: it has another size")
        recipe = learnt.get(name, Files([]))
        paths = [escape(entry["path"]) for entry in entries]
        found[name] = Files(paths, recipe.variable, {**dates} or None, recipe.later)
    return found


@dataclass
class Means:
    """Means over training runs.

    Args:
        channels: Of each target, over cells and runs, shape (channel,).
        cells: Of each target, over runs, shape (channel, *space); empty if not asked for, or if
            the training's grid is not that of the evaluation.
        runs: How many runs there were.
    """

    channels: Mapping[str, Array]
    cells: Mapping[str, Array]
    runs: int

    @classmethod
    def over(
        cls,
        targets: FieldSet,
        patterns: Mapping[str, Files],
        domain: Domain,
        shape: Shape | None = None,
        track: Callable[[Iterable[int], int], Iterable[int]] = lambda runs, _: runs,
        *,
        derived: Mapping[str, Derived] | None = None,
    ) -> "Means":
        """Read training runs, one slab at a time; what is not finite does not count.

        Args:
            targets: The fields.
            patterns: Where their files are.
            domain: What their grids have in common.
            shape: Cells per axis of the means of each cell; None: not wanted.
            track: Shows the progress over so many runs.
            derived: How fields without files are computed.

        Raises:
            M2MError: If files cannot be read, or do not fit.
        """
        made = {name: how for name, how in (derived or {}).items() if name not in patterns}
        names = resolve(targets.names, made)[1]
        runs = Runs(list(targets), [], {n: patterns[n] for n in names}, domain, derived=made)
        sums = {f.name: np.zeros((2, field_channels(f))) for f in targets}
        keeps = runs.domain.same_shape and runs.shape == shape
        each = {f.name: np.zeros((2, field_channels(f), *runs.shape)) for f in targets if keeps}
        for run in track(range(len(runs)), len(runs)):
            for name in targets.names:
                source, variable = runs.source(name, run)
                shape_here = runs.shape_of(run)
                for window in slabs(shape_here, sums[name].shape[1], CELLS):
                    values = np.empty((sums[name].shape[1], *window.shape))
                    source.read(variable, window, values, runs.domain.grid(shape_here))
                    finite = np.isfinite(values)
                    values[~finite] = 0
                    axes = tuple(range(1, values.ndim))
                    sums[name] += values.sum(axis=axes), finite.sum(axis=axes)
                    if keeps:
                        part = (slice(None), slice(window.start[0], window.stop[0]))
                        each[name][0][part] += values
                        each[name][1][part] += finite
                source.release()
        with np.errstate(invalid="ignore"):
            channels = {name: (total / count) for name, (total, count) in sums.items()}
            cells = {
                name: (total / count).astype(np.float32) for name, (total, count) in each.items()
            }
        for name, values in channels.items():
            if not np.isfinite(values).all():
                raise FieldError(f"no training file has a finite value of {name!r} in each channel")
        return cls(channels, cells, len(runs))


def from_training(
    targets: FieldSet,
    evaluated: Runs,
    find: Callable[[], Mapping[str, Files]],
    track: Callable[[Iterable[int], int], Iterable[int]],
    *,
    climatology: bool,
    usual: bool = False,
    required: bool,
) -> tuple[dict[str, Baseline], Mapping[str, Array]]:
    """The baselines that need the training set; none, with the reason logged, if it is not there.

    Args:
        targets: The fields.
        evaluated: The runs of the evaluation.
        find: Where the training files are.
        track: Shows the progress.
        climatology: Whether the mean of each cell is wanted as a baseline, too.
        usual: Whether it is wanted to compare with, if it can be had.
        required: Whether the training set must be there, because the user has named it.

    Returns:
        The baselines, and means of each cell by target; empty if not wanted, or not on the grid of
        the evaluation.

    Raises:
        M2MError: If the training set is required and cannot be used.
    """
    shape = tuple(n * evaluated.scale_factor for n in evaluated.shape)
    try:
        wanted = shape if climatology or usual else None
        how = evaluated.derived
        means = Means.over(targets, find(), evaluated.domain, wanted, track, derived=how)
    except M2MError as error:
        if required or climatology:
            raise
        log.info("no baseline 'training mean': %s; give --train NAME=PATTERN", error)
        return {}, {}
    found = {"training mean": constant(means.channels)}
    if climatology:
        if not means.cells or means.runs < 2:
            raise GeometryError(
                f"a climatology needs several training runs on the grid of the evaluation, "
                f"{shape}; leave out --climatology"
            )
        found["climatology"] = constant(means.cells)
    return found, means.cells if means.runs > 1 else {}
