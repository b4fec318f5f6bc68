"""Labels and parameters of whole runs: where they are told, and as numbers."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from map2map.errors import FieldError, RecipeError, SourceError, near_names
from map2map.fields import Field
from map2map.patterns import plain, some

__all__ = ["Known", "Told", "class_number", "numbers"]


@dataclass(frozen=True)
class Told:
    """Where the label or the parameter of a run is told: exactly one of the first four.

    Args:
        placeholder: A placeholder in the pattern of the files.
        attribute: An attribute of the first field that has files; or else of the groups that it
            is in, up to the file itself.
        coordinate: Whether it is the coordinate of the run's frame: a time, say.
        table: A CSV file with a header. Rows are found by the columns that are named like
            placeholders; without such a column, there is a row for every file, in their order.
            Or a ``.npy`` file of shape (file, column), or (file); or, with wildcards, such a file
            for every file, of shape (column), in the order of their names.
        column: Column of the table; by default the field's own name, and of npy files the only one.
        scale: What a parameter is multiplied by.
        offset: What is added to it then.
    """

    placeholder: str | None = None
    attribute: str | None = None
    coordinate: bool = False
    table: str | None = None
    column: str | int | None = None
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        given = [self.placeholder, self.attribute, self.coordinate or None, self.table]
        if sum(entry is not None for entry in given) != 1:
            raise RecipeError(
                "a label or parameter is told by exactly one of placeholder, attribute, coordinate "
                "and table"
            )


@dataclass(frozen=True)
class Known:
    """What is known of a run.

    Args:
        name: For messages.
        file: Number of its file among those of its field.
        files: How many those are, also those of which no frame is a run.
        placeholders: What those of the pattern stand for.
        coordinate: Gives the coordinate of its frame, if it has one.
        attributes: Gives the attributes of its first field, and of the groups that it is in.
    """

    name: str
    file: int
    files: int
    placeholders: Mapping[str, str]
    coordinate: Callable[[], float | None]
    attributes: Callable[[], Mapping[str, object]]


def numbers(
    field: Field, told: Told | float | str | None, runs: Sequence[Known]
) -> NDArray[np.float32]:
    """The numbers of a field of whole runs, as the network learns them.

    Args:
        field: A label or a parameter.
        told: Where it is told; or its value; None: by the placeholder of its own name.
        runs: The runs.

    Returns:
        Float32, shape (run, channel). Of a label of two classes: 1 for the second; of more: 1 in
        the channel of the class.

    Raises:
        FieldError: If it is not told, no number, or not among the classes.
        SourceError: If a table lacks it.
    """
    if told is None:
        known = sorted({key for run in runs for key in run.placeholders})
        if field.name not in known:
            raise FieldError(
                f"nothing says what the {field.kind} {field.name!r} of a run is: its files' "
                f"placeholders are {', '.join(known) or 'none'}; name one like it in the pattern, "
                f"as {{{field.name}}}, or say where it is told: a value, or placeholder, "
                f"attribute, coordinate or table"
            )
        told = Told(placeholder=field.name)
    texts = texts_of(field, told, runs)
    if field.kind == "label":
        key = told.placeholder if isinstance(told, Told) else None
        return one_hot(field, [class_number(field, text, run.name, key) for text, run in texts])
    scale, offset = (told.scale, told.offset) if isinstance(told, Told) else (1.0, 0.0)
    by = f" (by the table {told.table})" if isinstance(told, Told) and told.table else ""
    values = [scale * as_number(field, text, f"{run.name}{by}") + offset for text, run in texts]
    return np.array(values, np.float32)[:, None]


def texts_of(
    field: Field, told: Told | float | str, runs: Sequence[Known]
) -> list[tuple[object, Known]]:
    """What is told of each run, as it is told."""
    if not isinstance(told, Told):
        return [(told, run) for run in runs]
    if told.table is not None:
        if told.table.endswith(".npy"):
            values = array(told.table, told.column, field, runs)
            return [(values[run.file], run) for run in runs]
        row = table(told.table, str(told.column or field.name), runs)
        return [(row(run), run) for run in runs]
    found = []
    for run in runs:
        if told.placeholder is not None:
            known: Mapping[str, object] = run.placeholders
            value, what = known.get(told.placeholder), f"placeholder {told.placeholder!r}"
        elif told.attribute is not None:
            known = run.attributes()
            value, what = known.get(told.attribute), f"attribute {told.attribute!r}"
        else:
            known = {}
            value, what = run.coordinate(), "coordinate of a frame"
        if value is None:
            key = told.placeholder or told.attribute or ""
            raise FieldError(
                f"{run.name} has no {what}, which tells the {field.kind} {field.name!r}"
                f"{near_names(key, list(known)) if known else ''}"
            )
        found.append((value, run))
    return found


def table(path: str, column: str, runs: Sequence[Known]) -> Callable[[Known], str]:
    """What a table says of a run.

    Raises:
        SourceError: If it cannot be read, or lacks the column.
    """
    try:
        # some programs begin a table with a byte order mark
        with Path(path).open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened, skipinitialspace=True, restval="")
            rows, columns = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"cannot read the table {path}: {error}") from error
    if column not in columns:
        raise SourceError(f"the table {path} has no column {column!r}{near_names(column, columns)}")
    keys = [key for key in columns if all(key in run.placeholders for run in runs)]
    if not keys:
        files = runs[0].files
        if files != len(rows):
            raise SourceError(
                f"the table {path} has {len(rows)} rows for {files} files, and no column named "
                f"like a placeholder of their pattern, which would tell whose they are"
            )
        return lambda run: rows[run.file][column]
    found = {tuple(plain(row[key]) for key in keys): row[column] for row in rows}
    if len(found) < len(rows):
        raise SourceError(f"the table {path} has several rows with equal {', '.join(keys)}")

    def row(run: Known) -> str:
        wanted = tuple(plain(run.placeholders[key]) for key in keys)
        if wanted not in found:
            what = ", ".join(f"{key} {text}" for key, text in zip(keys, wanted, strict=True))
            raise SourceError(f"the table {path} has no row with {what}, for {run.name}")
        return found[wanted]

    return row


def array(
    path: str, column: str | int | None, field: Field, runs: Sequence[Known]
) -> NDArray[np.float64]:
    """What an npy file, or one for every file, says of the files.

    Returns:
        Shape (file).

    Raises:
        SourceError: If it cannot be read, or has other rows or columns.
    """
    paths = (
        [Path(path)]
        if not has_magic(path)
        else [
            Path(p)
            for p in sorted(glob(path))  # noqa: PTH207
        ]
    )
    files = runs[0].files
    if has_magic(path) and len(paths) != files:
        raise SourceError(
            f"{len(paths)} files match {path}, which tell {field.name!r}, for {files} files of "
            f"fields; there is one for each"
        )
    rows = []
    for one in paths:
        try:
            rows.append(np.load(one, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot read the table {one}: {error}") from error
        if rows[-1].dtype.kind not in "fiub":
            raise SourceError(f"the table {one} holds {rows[-1].dtype}, not numbers")
    if has_magic(path):
        if len({row.shape for row in rows}) > 1 or rows[0].ndim > 1:
            raise SourceError(
                f"the files {path} have the shapes {sorted({row.shape for row in rows})}; all have "
                f"as many columns: (column)"
            )
        values = np.stack([row.reshape(-1) for row in rows])
    else:
        values = rows[0][:, None] if rows[0].ndim == 1 else rows[0]
    if values.ndim != 2 or len(values) != files:
        raise SourceError(
            f"the table {path} has shape {rows[0].shape} for {files} files; it has a row for each: "
            f"({files}, column)"
        )
    count = values.shape[1]
    if column is None and count == 1:
        column = 0
    if not str(column).isdecimal() or int(str(column)) >= count:
        asked = "no `column` is given" if column is None else f"`column` {column!r} is asked for"
        raise SourceError(
            f"the table {path} has {count} columns, and {asked} for {field.name!r}; it is a number "
            f"from 0 to {count - 1}"
        )
    chosen: NDArray[np.float64] = values[:, int(str(column))]
    return chosen


def class_number(field: Field, text: object, where: str, placeholder: str | None = None) -> int:
    """The number of a class.

    Args:
        field: The label.
        text: What is told.
        where: Of which run, for the error.
        placeholder: What tells it, if a placeholder does, by which runs can be chosen.

    Raises:
        FieldError: If there is no such class.
    """
    classes = field.classes or ()
    words = as_text(text)
    if words not in classes:
        near = near_names(words, classes)
        if placeholder is not None:
            # others than the classes need not be a slip
            near = f"{near} Else" if "did you mean" in near else ";"
            near += (
                f" leave such runs out with --only {placeholder}={','.join(classes)}, or in a "
                f"recipe with `only: {{{placeholder}: [{', '.join(classes)}]}}`"
            )
        raise FieldError(
            f"{where} has the {field.name} {words!r}, which is none of its classes, "
            f"{some(classes, 20)}{near}"
        )
    return classes.index(words)


def one_hot(field: Field, classes: Sequence[int]) -> NDArray[np.float32]:
    """Classes as probabilities: of the second of two, or of each of several."""
    if len(field.classes or ()) == 2:
        return np.array(classes, np.float32)[:, None]
    return np.eye(len(field.classes or ()), dtype=np.float32)[list(classes)]


def as_text(value: object) -> str:
    """What is told as a text; attributes may be arrays of one value, or bytes.

    >>> as_text(b"gr"), as_text(np.array([3])), as_text(2.0), as_text(" gr ")
    ('gr', '3', '2', 'gr')
    """
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def as_number(field: Field, text: object, where: str) -> float:
    """A number, finite.

    Raises:
        FieldError: If it is none.
    """
    try:
        value = float(as_text(text))
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise FieldError(
            f"{where} has the {field.name} {str(text)!r}, which is no finite number; mend "
            f"it, or is {field.name!r} a label?"
        )
    return value
