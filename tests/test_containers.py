"""What can be told of the containers without an engine: names, arguments, users, shell."""

import re
import subprocess
import tomllib
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "src"}
"""What pip needs to install the package."""


def instructions():
    """Instructions of the Dockerfile, continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1] != "#"]
    text = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def of(kind):
    return [rest for name, rest in instructions() if name == kind]


def sections():
    """Header and sections of the Apptainer definition."""
    text = (ROOT / "apptainer.def").read_text()
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    header, *rest = re.split(r"^%(\w+)$", text, flags=re.M)
    return {"header": header} | dict(zip(rest[::2], rest[1::2], strict=True))


def sent():
    """Names at the top that .dockerignore lets through."""
    rules = [r for r in (ROOT / ".dockerignore").read_text().splitlines() if r and r[0] != "#"]
    assert rules[0] == "*"
    return {rule[1:] for rule in rules if rule[0] == "!"}


def test_what_is_copied_exists_is_sent_and_is_what_pip_needs():
    copied = {name for rest in of("COPY") for name in rest.split()[:-1]}
    assert copied == NEEDED == sent()
    assert all((ROOT / name).exists() for name in copied)
    pairs = [line.split() for line in sections()["files"].strip().splitlines()]
    assert {source for source, _ in pairs} == NEEDED
    assert all(PurePosixPath(to) == PurePosixPath("/opt/map2map", source) for source, to in pairs)
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {metadata["readme"], *metadata["license-files"]} <= NEEDED


def test_arguments_are_declared_used_and_the_same_in_both():
    order = [(k, name, rest) for k, (name, rest) in enumerate(instructions())]
    declared = {rest.partition("=")[0]: k for k, name, rest in order if name == "ARG"}
    for argument, place in declared.items():
        used = [k for k, name, rest in order if name != "ARG" and f"${{{argument}" in rest]
        assert used, argument
        assert min(used) > place, argument
    names = {m for _, _, rest in order for m in re.findall(r"\$\{([A-Z_]+)", rest)}
    assert names == declared.keys()
    # before FROM there is only what FROM needs, for what is declared there is forgotten behind it
    assert [rest for _, name, rest in order[:2] if name == "ARG"] == ["BASE=python:3.11-slim"]
    assert of("FROM") == ["${BASE}"]
    parts = sections()
    defaults = dict(line.strip().split("=") for line in parts["arguments"].strip().splitlines())
    assert defaults.keys() == declared.keys() - {"USER_ID"}
    assert all(defaults.values())
    everything = "".join(parts.values())
    assert set(re.findall(r"\{\{ (\w+) \}\}", everything)) == defaults.keys()
    assert defaults["BASE"] == "python:3.11-slim"
    assert "From: {{ BASE }}" in parts["header"]


def test_both_run_m2m_and_nobody_is_root():
    assert of("ENTRYPOINT") == ['["m2m"]']
    assert of("CMD") == ['["--help"]']
    assert sections()["runscript"].strip() == 'exec m2m "$@"'
    (user,) = of("USER")
    assert user not in ("root", "0")
    made = " ".join(of("RUN"))
    assert re.search(rf"useradd .* {user}\b", made)
    # nothing is installed once it is the user
    order = [name for name, _ in instructions()]
    after = instructions()[order.index("USER") + 1 :]
    assert not [rest for name, rest in after if name == "RUN" and "install" in rest]


def shells():
    post = sections()["post"]
    post = re.sub(r"\{\{ \w+ \}\}", "none", post)
    return [*of("RUN"), post, sections()["runscript"], sections()["environment"]]


@pytest.mark.parametrize("script", shells(), ids=lambda s: " ".join(s.split()[:3]))
def test_shell_is_shell_and_keeps_its_layers_small(script):
    done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for call in re.findall(r"apt-get install[^&;|}\n]*", script):
        assert "-y --no-install-recommends" in call
    if "apt-get" in script:
        assert script.index("apt-get update") < script.index("apt-get install")
        assert "rm -rf /var/lib/apt/lists/*" in script
    for call in re.findall(r"pip install[^&;\n]*", script):
        assert "--no-cache-dir --constraint constraints.txt" in call


@pytest.mark.parametrize(
    ("extras", "index", "expected"),
    [
        ("", "", [["torch"], ["."]]),
        ("export,tune", "there", [["--extra-index-url", "there", "torch"], [".[export,tune]"]]),
    ],
)
def test_extras_and_the_index_arrive_at_pip(tmp_path, extras, index, expected):
    """The lines of both files that install, run with a pip that writes down its arguments."""
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\nfor a in "$@"; do echo "$a"; done >> {tmp_path}/calls\n')
    pip.chmod(0o755)
    fixed = ["install", "--no-cache-dir", "--constraint", "constraints.txt"]
    wanted = [word for call in expected for word in (*fixed, *call)]

    def words_of(script):
        (tmp_path / "calls").write_text("")
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "EXTRAS": extras, "TORCH_INDEX": index}
        subprocess.run(["sh", "-euc", script], env=environment, check=True)
        return (tmp_path / "calls").read_text().splitlines()

    assert words_of("\n".join(rest for rest in of("RUN") if rest.startswith("pip"))) == wanted
    post = sections()["post"].replace("\\\n", " ").replace("/opt/venv/bin/pip", "pip")
    post = post.replace("{{ EXTRAS }}", extras or "none")
    post = post.replace("{{ TORCH_INDEX }}", index or "none")
    kept = ("EXTRAS=", "TORCH_INDEX=", "if ", "pip ")
    lines = [line for line in post.splitlines() if line.strip().startswith(kept)]
    assert words_of("\n".join(lines)) == wanted
