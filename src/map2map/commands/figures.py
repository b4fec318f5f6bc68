"""Figures of test sets: from what was typed to figures that are yet to be drawn."""

import argparse
import ast
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from map2map.commands.formulas import value_of
from map2map.errors import RecipeError, near_names
from map2map.fields import FieldSet
from map2map.figures import RunFigure
from map2map.gallery import Gallery, figures_available, short_name
from map2map.specs import build, import_path

__all__ = ["add_figures", "draw", "figures_of", "gallery_of"]

EXAMPLE = "dispersion or 'cross_section(axis=2, index=5)'"


BESIDE = ("figure", "pdf", "tensorboard")
"""Options that need --figures."""


def add_figures(parser: argparse.ArgumentParser) -> None:
    """The options of figures."""
    # fmt: off
    drawn = parser.add_argument_group("figures of all runs, in physical units")
    drawn.add_argument("--figures", type=Path, metavar="FOLDER",
        help="draw them and write them there, as PNG")
    drawn.add_argument("--figure", nargs="+", action="extend", default=[], metavar="NAME",
        help=f"which, of {', '.join(figures_available())}, with options if need be: "
        "'cross_section(axis=2, index=5)'; or a class of your own by its import path; default: all")
    drawn.add_argument("--pdf", action="store_true", help="write them as PDF, too")
    drawn.add_argument("--tensorboard", type=Path, metavar="FOLDER",
        help="show them in TensorBoard, too: the folder of its logs, such as runs/test")
    # fmt: on


def gallery_of(options: argparse.Namespace, targets: FieldSet) -> Gallery | None:
    """The figures that are asked for, of all targets and the vectors that they make up."""
    if options.figures is None:
        given = next((f"--{key}" for key in BESIDE if getattr(options, key)), None)
        if given is not None:
            raise RecipeError(f"{given} is for figures; say where to write them: --figures FOLDER")
        return None
    figures = figures_of(options.figure, tuple(options.trust), options.callback_at)
    gallery = Gallery(figures, [field.name for field in targets.with_vectors()])
    gallery.check(options.figures, kinds_of(options), overwrite=options.overwrite)
    return gallery


def draw(gallery: Gallery, options: argparse.Namespace) -> list[Path]:
    """Write the figures to where they are asked for."""
    with ExitStack() as stack:
        writer = None
        if options.tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            writer = stack.enter_context(SummaryWriter(str(options.tensorboard)))
        return gallery.write(options.figures, kinds_of(options), writer=writer)


def kinds_of(options: argparse.Namespace) -> tuple[str, ...]:
    """The formats of figures."""
    return ("png", "pdf") if options.pdf else ("png",)


def figures_of(
    arguments: Sequence[str], trust: Sequence[str] = (), callback_at: Path | None = None
) -> dict[str, RunFigure]:
    """The figures that are asked for, by name; all that there are if none is named.

    >>> figures_of(["cross_section(axis=1)"])["cross_section"].axis
    1

    Args:
        arguments: ``NAME`` or ``NAME(argument=value, …)``, where a name without dots is one of
            `map2map.figures`, and others are import paths.
        trust: Import paths of others that may be imported.
        callback_at: Folder of the user's code.

    Raises:
        RecipeError: If one is not of this form, there is none of this name, or it was named twice.
        ArtefactError: If its arguments do not fit, or it asks for code that is not trusted.
    """
    found: dict[str, RunFigure] = {}
    for argument in arguments or figures_available():
        path, values = parsed(argument)
        if "." not in path:
            ours = figures_available()
            if path not in ours:
                raise RecipeError(f"there is no figure {path!r}{near_names(path, ours)}")
            path = import_path(ours[path])
        spec = {"class_path": path, "init_args": values}
        figure = build(spec, base=RunFigure, trust=trust, callback_at=callback_at)
        name = short_name(type(figure))
        if name in found:
            raise RecipeError(
                f"the figure {name!r} was asked for twice; give its options at once, such as "
                f"{EXAMPLE}"
            )
        found[name] = figure
    return found


def parsed(argument: str) -> tuple[str, Mapping[str, Any]]:
    """Name and arguments of a figure; nothing is run."""
    try:
        call = ast.parse(argument.strip(), mode="eval").body
        if isinstance(call, ast.Name | ast.Attribute):
            return ast.unparse(call), {}
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("it is not a name with named arguments")
        return ast.unparse(call.func), {str(w.arg): value_of(w.value) for w in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise RecipeError(
            f"--figure {argument!r} cannot be read: {error}; write it as {EXAMPLE}"
        ) from error
