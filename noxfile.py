"""Sessions for those who like nox; they use the environment that make creates in .venv."""

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests"]


def make(session: nox.Session, *targets: str) -> None:
    """Run targets of the Makefile, which creates the environment first."""
    session.run("make", *targets, external=True)


def tool(session: nox.Session, name: str, *arguments: str) -> None:
    """Run a program of the environment."""
    make(session, ".venv/.installed")
    session.run(f".venv/bin/{name}", *arguments, external=True)


@nox.session
def demo(session: nox.Session) -> None:
    """The main job on data it simulates itself."""
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
    tool(session, "m2m", "train", *session.posargs)
