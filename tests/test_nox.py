"""The sessions of nox: all are there, and do what the Makefile and m2m do."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SESSIONS = {"demo", "tests", "lint", "docs", "bench", "train", "synthetic", "coverage"}


@pytest.fixture
def nox(tmp_path):
    """Runs nox where all programs only write down what they are called with."""
    shutil.copy(ROOT / "noxfile.py", tmp_path)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)

    def program(folder, name):
        path = folder / name
        path.write_text(
            f"#!{sys.executable}\n"
            "import json, os, sys\n"
            f"call = ['{name}', *sys.argv[1:]]\n"
            f"with open(r'{tmp_path}/calls', 'a') as file:\n"
            "    print(json.dumps(call), file=file)\n"
            "sys.exit('--fail' in call)\n"
        )
        path.chmod(0o755)

    for name in ("python", "m2m", "coverage"):
        program(programs, name)
    (tmp_path / "path").mkdir()
    program(tmp_path / "path", "make")

    def run(*argv):
        (tmp_path / "calls").write_text("")
        environment = os.environ | {"PATH": f"{tmp_path}/path:{os.environ['PATH']}"}
        done = subprocess.run(
            [sys.executable, "-m", "nox", "--no-color", *argv],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
        return done.returncode, calls, done.stdout + done.stderr

    run.programs = programs
    return run


def test_the_list_names_every_session_with_a_line(nox):
    status, _, text = nox("--list")
    assert status == 0
    lines = dict(re.findall(r"^[*-] (\S+) -> (\S.*)$", text, re.M))
    assert lines.keys() == SESSIONS
    assert all(line.endswith(".") for line in lines.values())


def test_names_and_options_are_passed_on(nox):
    argv = ["ice_flow", "--out", "a b", "--setting.years=3"]
    assert nox("-s", "synthetic", "--", *argv)[:2] == (0, [["m2m", "simulate", *argv]])
    argv = ["flame", "--trainer.max_epochs=1", "--output.folder", "x y"]
    assert nox("-s", "train", "--", *argv)[:2] == (0, [["m2m", "train", *argv]])
    argv = ["-m", "pytest", "tests/test_windows.py", "-x"]
    assert nox("-s", "tests", "--", *argv[2:])[:2] == (0, [["python", *argv]])


@pytest.mark.parametrize(("session", "listing"), [("train", "recipes"), ("synthetic", "simulate")])
def test_without_a_name_there_is_a_list_and_a_refusal(nox, session, listing):
    status, calls, text = nox("-s", session)
    assert (status, calls) == (1, [["m2m", listing]])
    assert f"nox -s {session} -- NAME" in text


def test_the_others_are_targets_of_the_makefile(nox):
    sessions = ["demo", "lint", "docs", "bench"]
    status, calls, _ = nox("-s", *sessions)
    assert status == 0
    assert [call[0] for call in calls] == ["make"] * 4
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert {target for _, target in calls} <= set(targets)
    status, calls, text = nox("-s", "demo", "--", "quickly")
    assert (status, calls) == (1, [])
    assert "demo takes no arguments" in text


def test_coverage_is_told_also_of_tests_that_fail(nox):
    status, calls, _ = nox("-s", "coverage", "--", "tests/test_a.py")
    assert status == 0
    assert ["coverage", "run", "-m", "pytest", "tests/test_a.py"] in calls
    status, calls, text = nox("-s", "coverage", "--", "--fail")
    assert status == 1
    assert "a test has failed" in text
    assert next(call for call in calls if call[1] == "xml")[-2:] == ["-o", "coverage.xml"]


def test_a_missing_environment_is_said_how_to_make(nox):
    (nox.programs / "m2m").unlink()
    status, calls, text = nox("-s", "train", "--", "flame")
    assert (status, calls) == (1, [])
    assert "`make .venv/.installed` makes the environment" in text
    assert re.search(r"^\$\(STAMP\):", (ROOT / "Makefile").read_text(), re.M)
