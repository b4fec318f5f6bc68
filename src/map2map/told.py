"""Labels and parameters of whole runs: where they are told, and as numbers."""

import csv
import re
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
            placeholders; without such a column, there is a row for every file, in their order,
            those that `only` leaves out among them; which must be that of their numbers, too.
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
        files: Their names, also of those of which no frame is a run, or which are left out.
        placeholders: What those of the pattern stand for.
        coordinate: Gives the coordinate of its frame, if it has one.
        attributes: Gives the attributes of its first field, and of the groups that it is in.
    """

    name: str
    file: int
    files: Sequence[str]
    placeholders: Mapping[str, str]
    coordinate: Callable[[], float | None]
    attributes: Callable[[], Mapping[str, object]]


def numbers(
    field: Field, told: Told | float | str | None, runs: Sequence[Known]
) -> NDArray[np.float64]:
    """The numbers of a field of whole runs, as the network learns them.

    Args:
        field: A label or a parameter.
        told: Where it is told; or its value; None: by the placeholder of its own name.
        runs: The runs.

    Returns:
        Float64, shape (run, channel). Of a label of two classes: 1 for the second; of more: 1 in
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
        return one_hot(field, [class_number(field, text, where, key) for text, where in texts])
    scale, offset = (told.scale, told.offset) if isinstance(told, Told) else (1.0, 0.0)
    values = [scale * as_number(field, text, where) + offset for text, where in texts]
    return np.array(values, np.float64)[:, None]


def texts_of(
    field: Field, told: Told | float | str, runs: Sequence[Known]
) -> list[tuple[object, str]]:
    """What is told of each run, as it is told, and of whom and where, for messages."""
    if not isinstance(told, Told):
        return [(told, run.name) for run in runs]
    if told.table is not None:
        check_name(told.table)
        if told.table.endswith(".npy"):
            values = array(told.table, told.column, field, runs)
            return [
                (values[run.file], f"{run.name} (by row {run.file} of {told.table})")
                for run in runs
            ]
        row = table(told.table, str(told.column or field.name), runs)
        return [
            (text, f"{run.name} (by the table {told.table}, line {line})")
            for run in runs
            for text, line in [row(run)]
        ]
    found: list[tuple[object, str]] = []
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
        found.append((value, run.name))
    return found


def check_name(path: str) -> None:
    """Refuse the name of a table that has what it cannot have.

    Raises:
        SourceError: If there are placeholders, or wildcards of CSV files.
    """
    stars = re.sub(r"\{[a-zA-Z_]\w*\}", "*", path)
    if (stars == path and not has_magic(path)) or Path(path).exists():
        return
    several = "with wildcards there is an npy file for every file of the fields, in the order of "
    if stars != path:
        hint = f"{several}their names, as {stars}" if path.endswith(".npy") else ""
        raise SourceError(
            f"the name of the table {path} has a placeholder, which stands for something in files "
            f"of fields only; "
            + (hint or "one CSV file tells of all runs, by a column named like the placeholder")
        )
    if not path.endswith(".npy"):
        raise SourceError(
            f"the name of the table {path} has wildcards, but one CSV file tells of all runs; "
            f"{several}their names"
        )


Rows = list[tuple[int, list[str]]]
"""Of a CSV file: the number of the line, and the cells."""


def read_table(path: str) -> tuple[list[str], Rows]:
    """The columns of a CSV file, and its rows.

    Raises:
        SourceError: If it cannot be read, or a row has others cells than there are columns.
    """
    try:
        # some programs begin a table with a byte order mark
        with Path(path).open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened, skipinitialspace=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"cannot read the table {path}: {error}") from error
    (_, columns), *rows = [line for line in lines if any(line[1])] or [(1, [])]
    named = [column for column in columns if column]
    if twice := sorted({column for column in named if named.count(column) > 1}):
        raise SourceError(
            f"the table {path} has several columns {', '.join(map(repr, twice))}; name each "
            f"differently"
        )
    for number, cells in rows:
        # some programs end rows with empty cells
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            raise SourceError(
                f"line {number} of the table {path} has {len(cells)} cells, {','.join(cells)}, for "
                f"{len(columns)} columns, {','.join(columns)}; mend it (a decimal comma counts as "
                f"one between cells)"
            )
    return columns, rows


def table(path: str, column: str, runs: Sequence[Known]) -> Callable[[Known], tuple[str, int]]:
    """What a table says of a run, and in which line.

    Raises:
        SourceError: If it cannot be read, or lacks the column.
    """
    columns, rows = read_table(path)
    if column not in columns:
        raise SourceError(f"the table {path} has no column {column!r}{near_names(column, columns)}")
    told = [(cells[columns.index(column)], line) for line, cells in rows]
    keys = [key for key in columns if key and all(key in run.placeholders for run in runs)]
    if not keys:
        files = runs[0].files
        if len(files) != len(rows):
            raise SourceError(
                f"the table {path} has {len(rows)} rows for {len(files)} files (those that `only` "
                f"leaves out among them), and no column named like a placeholder of their "
                f"pattern, which would tell whose they are"
            )
        check_order(path, files)
        return lambda run: told[run.file]
    found: dict[tuple[str, ...], tuple[str, int]] = {}
    for (line, cells), entry in zip(rows, told, strict=True):
        wanted = tuple(plain(cells[columns.index(key)]) for key in keys)
        if wanted in found:
            raise SourceError(
                f"the table {path} has several rows with equal {', '.join(keys)}: lines "
                f"{found[wanted][1]} and {line}"
            )
        found[wanted] = entry

    def row(run: Known) -> tuple[str, int]:
        wanted = tuple(plain(run.placeholders[key]) for key in keys)
        if wanted not in found:
            what = ", ".join(f"{key} {text}" for key, text in zip(keys, wanted, strict=True))
            raise SourceError(f"the table {path} has no row with {what}, for {run.name}")
        return found[wanted]

    return row


NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")


def by_numbers(names: Sequence[str]) -> list[int]:
    """The order of names in which numbers count as such, as indices.

    >>> by_numbers(["a_0", "a_1", "a_10", "a_2"]), by_numbers(["nu0.25", "nu0.5"])
    ([0, 1, 3, 2], [0, 1])
    """

    def key(k: int) -> list[str | float]:
        # text and numbers take turns, so that like is compared with like
        parts = NUMBER.split(names[k])
        return [float(part) if i % 2 else part for i, part in enumerate(parts)]

    return sorted(range(len(names)), key=key)


def check_order(path: str, files: Sequence[str], tables: Sequence[str] = ()) -> None:
    """Refuse rows in an order of files that can be meant in two ways.

    Args:
        path: Of the table.
        files: In the order in which they are taken, as text.
        tables: Likewise, if there is one for each.

    Raises:
        SourceError: If it is not that of the numbers in their names.
    """
    order = by_numbers(files)
    if order == (by_numbers(tables) if tables else list(range(len(files)))):
        return
    # from the first that are not where they would be by their numbers
    start = max(next((k for k, n in enumerate(order) if n != k), 0) - 1, 0)
    shown = ", ".join(files[start : start + 3])
    raise SourceError(
        f"the table {path} has its rows in the order of the files, which are sorted as text, not "
        f"by numbers: …, {shown}, …; tell whose they are in a CSV file with a column named like a "
        f"placeholder of the files' pattern, or pad the numbers in names with zeros, as 02 and 10"
    )


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
    names = runs[0].files
    files = len(names)
    if has_magic(path) and len(paths) != files:
        raise SourceError(
            f"{len(paths)} files match {path}, which tell {field.name!r}, for {files} files of "
            f"fields (those that `only` leaves out among them); there is one for each"
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
            f"the table {path} has shape {rows[0].shape} for {files} files (those that `only` "
            f"leaves out among them); it has a row for each: ({files}, column)"
        )
    check_order(path, names, [str(one) for one in paths] if has_magic(path) else ())
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


def one_hot(field: Field, classes: Sequence[int]) -> NDArray[np.float64]:
    """Classes as probabilities: of the second of two, or of each of several."""
    if len(field.classes or ()) == 2:
        return np.array(classes, np.float64)[:, None]
    return np.eye(len(field.classes or ()))[list(classes)]


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
