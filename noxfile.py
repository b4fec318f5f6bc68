"""Sessions for those who like nox; they use the environment that make creates in .venv.

Each does what the Makefile or m2m does, and is here for its name: nox --list.
"""

from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests"]

BIN = Path(".venv", "bin")


def tool(session: nox.Session, name: str, *arguments: str) -> None:
    """Run a program of the environment."""
    program = BIN / name
    if not program.exists():
        session.error(f"there is no {program}; `make .venv/.installed` makes the environment")
    session.run(str(program), *arguments, external=True)


def make(session: nox.Session, target: str) -> None:
    """Run a target of the Makefile, which makes the environment first where it is not there."""
    if session.posargs:
        session.error(f"{session.name} takes no arguments, but was given {session.posargs}")
    session.run("make", target, external=True)


def named(session: nox.Session, command: str, listing: str) -> None:
    """Run a command of m2m that takes a name, and lists what there is without one."""
    if session.posargs:
        tool(session, "m2m", command, *session.posargs)
    else:
        tool(session, "m2m", listing)
        session.error(f"which one? nox -s {session.name} -- NAME [options]")


@nox.session
def demo(session: nox.Session) -> None:
    """The main job on data it simulates itself, in demo/."""
    make(session, "demo")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, or those named: nox -s tests -- tests/test_windows.py."""
    tool(session, "python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, layers."""
    make(session, "check")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, in site/."""
    make(session, "docs")


@nox.session
def bench(session: nox.Session) -> None:
    """Side-by-side timings."""
    make(session, "bench")


@nox.session
def train(session: nox.Session) -> None:
    """Train a recipe: nox -s train -- RECIPE [overrides]."""
    named(session, "train", "recipes")


@nox.session
def synthetic(session: nox.Session) -> None:
    """Simulate data: nox -s synthetic -- NAME [options]."""
    named(session, "simulate", "simulate")


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines the tests run, in coverage.xml: nox -s coverage -- [tests/test_windows.py]."""
    tool(session, "coverage", "erase")
    # what failed is told at the end, and what ran is reported all the same
    failed = False
    try:
        tool(session, "coverage", "run", "-m", "pytest", *session.posargs)
    except CommandFailed:
        failed = True
    tool(session, "coverage", "combine", "--quiet")
    tool(session, "coverage", "xml", "--quiet", "-o", "coverage.xml")
    tool(session, "coverage", "report", "--sort=cover", "--skip-covered")
    if failed:
        session.error("a test has failed")
