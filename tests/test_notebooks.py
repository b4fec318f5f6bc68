"""The notebooks of `examples/`: they run, and are kept without what running them leaves."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

nbformat = pytest.importorskip("nbformat", reason="it comes with the extra dev")
nbclient = pytest.importorskip("nbclient", reason="it comes with the extra dev")
pytest.importorskip("ipykernel", reason="it comes with the extra dev")

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(path.stem for path in EXAMPLES.glob("*.ipynb"))

FEW = {
    "cosmology": "size, box, runs = 16, 32.0, 2\nwidth, epochs = 2, 1",
    "ice": "setting = ice_flow.Setting(sizes=(12, 16), frames=3, years=60.0)\n"
    "cases, unseen = 2, 1\nwidth, depth, epochs = 2, 2, 1",
    "flame": "setting = flame_front.Setting(size=8, every=2, thickness=2e-4, integral=0.2)\n"
    "snapshots = 1\nwidth, epochs = 2, 1\ncrop = [8, 8, 8]",
    "columns": "rows, days = 60, 3\nwidth, epochs = 4, 1",
}
"""Numbers that make a notebook quick, in place of those of its cell `parameters`."""

BASELINES = {
    "cosmology": {"linear", "second order"},
    "ice": {"shallow ice"},
    "flame": {"resolved", "Charlette", "Charlette, fitted"},
    "columns": {"training mean", "linear"},
}


def opened(name):
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def parameters(notebook):
    """The position of the cell with the numbers."""
    (found,) = (
        i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", [])
    )
    return found


def assigned(code):
    nodes = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, ast.Store)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a notebook in an empty folder: its scores, what else is asked for, and the notebook."""
    # nothing of the user's is read, nor anything left in the home folder
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)

    def execute(name, numbers=None, ask="{}"):
        notebook, folder = opened(name), tmp_path / "here"
        folder.mkdir()
        if numbers is not None:
            cell = nbformat.v4.new_code_cell(numbers)
            notebook.cells.insert(parameters(notebook) + 1, cell)
        last = f"import json\nscores.to_netcdf({str(tmp_path / 'scores.nc')!r})\n"
        last += f"print(json.dumps({ask}))"
        notebook.cells.append(nbformat.v4.new_code_cell(last))
        resources = {"metadata": {"path": str(folder)}}
        nbclient.NotebookClient(notebook, timeout=500, resources=resources).execute()
        assert [*folder.iterdir()] == [], "all is written to a temporary folder"
        asked = json.loads(notebook.cells[-1].outputs[-1].text)
        return xr.load_dataset(tmp_path / "scores.nc"), asked, notebook

    return execute


def outputs(notebook):
    return [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]


def check(name, scores, notebook):
    """What holds of every notebook, however few its numbers."""
    assert set(scores.method.values) == BASELINES[name] | {"emulator"}
    for score in ("r2", "rmse"):
        assert np.isfinite(scores[score]).all()
    assert (scores.rmse > 0).all()
    pictures = [out for out in outputs(notebook) if "image/png" in out.get("data", {})]
    assert len(pictures) >= 3
    # warnings would be printed there
    assert [out.text for out in outputs(notebook) if out.get("name") == "stderr"] == []


def test_there_is_a_notebook_for_each_family():
    assert set(NOTEBOOKS) == FEW.keys() == BASELINES.keys()


def test_cosmology_runs_and_its_tiles_do_not_show(run):
    ask = "{'difference': float(difference), 'rms': float(whole.std()), 'cells': whole.shape}"
    scores, asked, notebook = run("cosmology", FEW["cosmology"], ask)
    check("cosmology", scores, notebook)
    assert asked["cells"] == [3, 24, 24, 24]
    assert asked["difference"] < 1e-5 * asked["rms"]
    # displacements of a box this small are nearly linear
    assert scores.r2.sel({"method": "linear"}) > 0.5


def test_ice_runs_and_refuses_units(run):
    ask = "{'dims': emulated.ubar.dims, 'needs': emulator.needed()}"
    scores, asked, notebook = run("ice", FEW["ice"], ask)
    check("ice", scores, notebook)
    assert asked["dims"] == ["time", "y", "x"]
    assert "usurf" in asked["needs"], "slopes are computed from it"
    (told,) = (out.text for out in outputs(notebook) if "refused" in out.get("text", ""))
    assert "'km'" in told


def test_flame_runs_and_a_filter_hides_surface(run):
    scores, surfaces, notebook = run("flame", FEW["flame"], "surfaces")
    check("flame", scores, notebook)
    # the norm of a filtered gradient is at most the filtered norm, which flat flames have least of
    assert surfaces["resolved"] < surfaces["truth"]
    assert surfaces["truth"] > 0.9
    ratio = surfaces["Charlette"] / surfaces["resolved"]
    assert ratio == pytest.approx((1 + 8 * 1e-4 / 2e-4) ** 0.5, rel=1e-5)


def test_columns_run_and_are_scored_on_every_level(run):
    scores, _, notebook = run("columns", FEW["columns"])
    check("columns", scores, notebook)
    assert scores.sizes["level"] == 63
    assert [*scores.field.values] == ["du", "dv"]
    # of a constant, on each level
    assert (scores.level_r2.sel({"method": "training mean"}) < 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_emulator_of_a_whole_notebook_beats_every_baseline(name, run):
    scores, _, notebook = run(name)
    check(name, scores, notebook)
    r2 = scores.r2.mean([axis for axis in scores.r2.dims if axis != "method"])
    others = [method for method in r2.method.values if method != "emulator"]
    assert (r2.sel({"method": "emulator"}) > r2.sel({"method": others})).all()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_few_numbers_are_those_that_the_notebook_names(name):
    notebook = opened(name)
    assert assigned(FEW[name]) == assigned(notebook.cells[parameters(notebook)].source)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_outputs(name):
    notebook = opened(name)
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_written_as_it_would_be_saved_again(name):
    text = (EXAMPLES / f"{name}.ipynb").read_text()
    assert nbformat.writes(opened(name)) + "\n" == text
