"""Each use case from its simulation to its report: two steps of training on few data."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from map2map.cli import main
from map2map.emulator import Emulator
from map2map.task import Task

FLAME = ["--snapshots=1", "--setting.size=8", "--setting.every=2", "--setting.thickness=2e-4",
         "--setting.integral=0.2"]  # fmt: skip
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2",
         "--trainer.limit_val_batches=1", "--trainer.logger=false",
         "--trainer.accelerator=cpu"]  # fmt: skip
SCORED = ["--bootstrap=10", "--metrics", "pointwise", "conservation", "level",
          "--figures", "figures", "--figure", "histogram"]  # fmt: skip
LATENT = (
    "bulk:latent=BulkFlux(flux=latent, u=u10, v=v10, temperature=t2m, humidity=q2m, sst=sst, "
    "pressure=sp, current=[uo, vo])"
)
SIGMA = "resolved:sigma=data/raw/{}_*.h5::{}"
SMALL_PANGU = (
    "{shape: [12, 24], levels: 2, surface: 4, patch: [2, 2, 2], window: [2, 3, 6], width: 12}"
)

CASES = {
    "flame_surface_density": (
        ["flame_front", *FLAME],
        ["--model.model.init_args.width=2", "--data.crops.size=[8,8,8]", "--data.augment.shift=4"],
        ["--baseline", SIGMA.format("DNS3", "grad_filt_8")],
    ),
    "flame_surface_density_graph": (
        ["flame_front", "--layout=r2", *FLAME],
        ["--model.model.init_args.width=4"],
        ["--baseline", SIGMA.format("R3", "c_filt_grad")],
    ),
    "darcy": (
        ["darcy", "--train=40", "--val=4", "--test=4", "--setting.refine=1"],
        ["--model.model.init_args.width=4"],
        [],
    ),
    "gravity_wave_drag": (
        ["gravity_waves", "--rows=40", "--setting.spectrum.speeds=4"],
        ["--model.model.init_args.width=4", "--data.crops.size=20"],
        [],
    ),
    "turbulence_rollout": (
        [
            "kolmogorov_flow",
            "--runs=23",
            "--frames=6",
            "--setting.size=16",
            "--setting.spin_up=0.2",
            "--setting.step=0.1",
        ],
        ["--model.model.init_args.width=2", "--model.model.init_args.modes=3"],
        [],
    ),
    "super_resolution": (
        ["nbody", "--runs=9", "--size=8", "--box=32", "--steps=2", "--finer=2"],
        [
            "--model.model.init_args.width=2",
            "--model.model.init_args.convs=1",
            "--data.crops.size=8",
            "--data.augment.shift=8",
        ],
        [],
    ),
    "radiation_3d": (
        ["radiation_columns", "--columns_per_group=8", "--groups=9"],
        ["--model.model.init_args.options={width: 2, levels: 2}", "--data.crops.size=8"],
        [],
    ),
    "radiation_3d_prepared": (
        ["radiation_columns", "--columns_per_group=8", "--groups=9"],
        ["--model.model.init_args.options={width: 2, levels: 2}", "--data.crops.size=8"],
        [],
    ),
    "cosmology_styled": (
        [
            "nbody",
            "--runs=4",
            "--size=8",
            "--box=16",
            "--steps=2",
            "--densities=[0.2,0.25,0.3,0.35,0.4]",
            "--redshifts=[0,0.25,0.5,0.75,1]",
        ],
        ["--model.model.init_args.width=2", "--data.crops.size=8"],
        ["--baseline", "2LPT:displacement=data/lpt_03_Om0.[23]5_z0.[27]5.npy"],
    ),
    "ocean_atmosphere_coupling": (
        ["air_sea_fluxes", "--train=1", "--test=1", "--setting.days=1"],
        ["--model.model.init_args.width=2", "--trainer.precision=32"],
        ["--formula", LATENT],
    ),
}


PREPARED = {
    "ocean_atmosphere_coupling": "ocean_atmosphere_coupling",
    "radiation_3d_prepared": "radiation_3d",
}
"""Recipes that read what is prepared, and the recipe whose section says how."""


@pytest.mark.parametrize("name", CASES)
def test_a_use_case_runs_from_simulation_to_report(name, tmp_path, monkeypatch):
    if "graph" in name:
        pytest.importorskip("torch_geometric")
    monkeypatch.chdir(tmp_path)
    simulate, train, evaluate = CASES[name]
    assert main(["simulate", *simulate, "--out", "data"]) == 0
    assert main(["simulate", *simulate, "--out", "data"]) == 2, "it would be overwritten"
    if name in PREPARED:
        assert main(["prepare", PREPARED[name]]) == 0
    assert main(["train", name, *SHORT, *train]) == 0
    where = ["emulator.safetensors", "--split", "test"]
    assert main(["evaluate", *where, *evaluate, *SCORED]) == 0
    scores = xr.load_dataset("scores.nc")
    assert np.isfinite(scores.rmse.sel({"method": "emulator"})).all()
    if evaluate:
        assert evaluate[1].partition(":")[0] in scores.method.values
    assert list(Path("figures").glob("*.png"))
    assert main(["report", "scores.nc"]) == 0
    assert Path("report.html").stat().st_size > 10_000


class Stop(BaseException):
    """What a program that is ended does not live to see."""


APPLIED = {
    "super_resolution": ["coarse=data/pm_08.npy"],
    "cosmology_styled": ["linear=data/za_03_Om0.25_z0.25.npy", "Om=0.25", "z=0.25"],
}
"""Recipes whose networks see some way only, and what they are applied to in tiles."""


@pytest.mark.parametrize(
    "name", ["super_resolution", "cosmology_styled", "darcy", "turbulence_rollout"]
)
def test_a_use_case_that_is_broken_off_goes_on_bit_for_bit_and_is_applied_in_tiles(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    simulate, train, _ = CASES[name]
    assert main(["simulate", *simulate, "--out", "data"]) == 0
    command = ["train", name, *SHORT, "--trainer.max_epochs=2", *train, "--output.every=1"]
    assert main([*command, "--output.folder=whole"]) == 0
    plain, steps = Task.training_step, []

    def breaks(self, *batch):
        steps.append(self.global_step)
        # within the second epoch
        if len(steps) == 4:
            raise Stop
        return plain(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", breaks)
        with pytest.raises(Stop):
            main([*command, "--output.folder=broken"])
    assert Path("broken/state_partial.pt").exists()
    assert main([*command, "--output.folder=broken"]) == 0
    whole, broken = (
        Emulator.load(f"{folder}/emulator.safetensors") for folder in ("whole", "broken")
    )
    for key, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[key]), key
    if name not in APPLIED:
        assert whole.footprint.whole
        return
    made = []
    for output, more in {"one.npy": [], "tiles.npy": ["--tile", "4"]}.items():
        command = ["apply", "whole/emulator.safetensors", *APPLIED[name], "-o", output, *more]
        assert main(command) == 0
        made.append(np.load(output))
    np.testing.assert_allclose(made[1], made[0], rtol=1e-4, atol=1e-5 * made[0].std())
