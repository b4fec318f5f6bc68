"""Emulator: norms + model + fields + grid, as one module and one self-describing file.

The file is in the safetensors format: the weights, and in its header one JSON text, the *card*,
that says all else. It is read without running any code that it could contain.
"""

import json
import os
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
import xarray as xr
from safetensors.torch import save_file
from torch import Tensor, nn

from map2map.arrays import (
    Applicable,
    Settings,
    apply_arrays,
    apply_whole,
    domain_of_input,
    require_noise,
)
from map2map.datasets import apply_dataset
from map2map.derived import Derived
from map2map.errors import ArtefactError, FieldError, GeometryError, RecipeError, near_names
from map2map.fields import FieldSet
from map2map.files import replacing
from map2map.footprints import Footprint, footprint_of
from map2map.grids import Domain
from map2map.norms import Identity, Norm
from map2map.readers import resolve
from map2map.slopes import Derivative, Velocity
from map2map.specs import Spec, build, describe
from map2map.styles import style_of, warn_outside, with_any_style
from map2map.typing import Shape

__all__ = ["Card", "Emulator"]

FORMAT = 1
"""Version of the card; a reader refuses one that it does not know."""


@dataclass(frozen=True)
class Card:
    """What an emulator file says about itself, readable without its weights.

    Args:
        format: Version of this card.
        inputs: The fields it takes: name, units, kind, channels.
        targets: The fields it gives.
        norms: The norm of each field, by name.
        model: The network.
        footprint: What the network sees.
        outputs: How many outputs of the network belong to each number that it gives: 2 if it also
            gives the logarithms of their variances.
        grid: Number of axes, spacing, periodic axes and pad of the grids it was trained on.
        training: Files with their digests, splits, seed, options.
        scores: How well it did on its own training and validation splits.
        versions: Of the libraries that made it.
        derived: How inputs are computed from other fields, by name.
        styles: The parameters of a run that it takes beside its inputs.
        style_range: Lowest and highest value of each in the training split, by name.
        cells: Per axis, of the fields of the training, if the network sees the whole domain.
    """

    format: int
    inputs: list[dict[str, Any]]
    targets: list[dict[str, Any]]
    norms: dict[str, Spec]
    model: Spec
    footprint: dict[str, Any]
    grid: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    derived: dict[str, Spec] = field(default_factory=dict)
    styles: list[dict[str, Any]] = field(default_factory=list)
    style_range: dict[str, list[float]] = field(default_factory=dict)
    cells: list[int] | None = None

    def entries(self) -> dict[str, Any]:
        """What is written; of what few emulators have nothing where there is none."""
        found = asdict(self)
        return {k: v for k, v in found.items() if v or k not in ("styles", "style_range", "cells")}

    @classmethod
    def read(cls, path: Path | str) -> "Card":
        """Read the card of an emulator file, and nothing else of it.

        Raises:
            ArtefactError: If it is no emulator file, or one of an unknown format.
        """
        path = Path(path)
        try:
            with safetensors.safe_open(path, framework="numpy") as opened:
                text = (opened.metadata() or {}).get("map2map")
        except FileNotFoundError as error:
            raise ArtefactError(f"there is no emulator {path}") from error
        except (safetensors.SafetensorError, OSError) as error:
            raise ArtefactError(
                f"{path} is not an emulator, or is truncated ({error}); an emulator is a "
                f"safetensors file that `m2m train` has written"
            ) from error
        if text is None:
            raise ArtefactError(f"{path} holds weights, but no card; it is not an emulator")
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, path: Path | str) -> "Card":
        """A card from its JSON text.

        Args:
            text: The text.
            path: The file that it is from, for messages.

        Raises:
            ArtefactError: If it is none, or one of an unknown format.
        """
        try:
            entries = dict(json.loads(text))
        except ValueError as error:
            raise ArtefactError(f"the card of {path} is damaged: {error}") from error
        if entries.get("format") != FORMAT:
            raise ArtefactError(
                f"{path} has format {entries.get('format')}, but this version reads {FORMAT}; "
                f"use the version of map2map that wrote it, {entries.get('versions')}"
            )
        try:
            return cls(**entries)
        except TypeError as error:
            raise ArtefactError(f"the card of {path} lacks or has unknown keys: {error}") from error


class Emulator(nn.Module):
    """Physical fields in, physical fields out.

    Args:
        inputs: The fields it takes, resolved.
        targets: The fields it gives, resolved.
        norms: Norms by field name; a field without one is left as it is.
        model: The network, from normalized inputs to normalized targets.
        domain: What the grids it was trained on have in common, its ``ndim`` known.
        model_spec: How to make the network again; by default from the arguments that it keeps.
        derived: How inputs are computed from other fields, where they are not given.
        styles: Parameters of a run, resolved, that the network takes beside its inputs; it is
            called with (x, style) then, the style normalized, of shape (batch, style_chan).

    Attributes:
        footprint: What the network sees.
        style_range: Lowest and highest value of each style in the training split, by name.
        cells: Per axis, of the fields of the training, if it sees the whole domain and they are
            known.
        settings: How it is applied to whole fields where that is not said.
    """

    def __init__(
        self,
        inputs: FieldSet,
        targets: FieldSet,
        norms: Mapping[str, Norm],
        model: nn.Module,
        domain: Domain,
        model_spec: Spec | None = None,
        derived: Mapping[str, Derived] | None = None,
        styles: FieldSet | None = None,
    ) -> None:
        super().__init__()
        self.styles = styles or FieldSet(())
        self.style_range: dict[str, list[float]] = {}
        self.cells: Shape | None = None
        names = (*inputs.names, *targets.names, *self.styles.names)
        self.derived: Mapping[str, Derived] = dict(derived or {})
        for name, norm in norms.items():
            if name not in names:
                raise FieldError(f"a norm is given for {name!r}{near_names(name, names)}")
            if name in targets.names and targets[name].classes and not isinstance(norm, Identity):
                raise FieldError(f"{name!r} is a label; it has classes, so it takes no norm")
            others = [need for need in norm.needs if need not in self.styles.names]
            if others:
                raise FieldError(
                    f"the norm of {name!r} depends on {others[0]!r}, which is no style"
                    f"{near_names(others[0], self.styles.names)}"
                )
        self.inputs, self.targets = inputs, targets
        self.norms = nn.ModuleList([norms.get(name, Identity()) for name in names])
        self.model = model
        self.model_spec = model_spec or describe(model)
        if domain.ndim is None:
            raise GeometryError("an emulator needs to know the number of axes of its domain")
        self.domain, self.ndim = domain, domain.ndim
        self.footprint: Footprint = footprint_of(
            with_any_style(model, self.styles.channels), inputs.channels, self.ndim
        )
        self.settings = Settings()
        # twice as many outputs as parameters: their log-variances come behind
        twice = getattr(model, "out_chan", None) == 2 * targets.channels
        parameters = bool(len(targets)) and all(f.kind == "parameter" for f in targets)
        self.outputs: int = 2 if twice and parameters else 1
        self.training_record: dict[str, Any] = {}
        self.scores: dict[str, Any] = {}
        self.versions: dict[str, str] = {}

    def needed(self, given: Container[str] = ()) -> tuple[str, ...]:
        """Names of the fields that it has to be given.

        Args:
            given: Fields that are given in any case; inputs among them need not be computed.

        Returns:
            Inputs, but instead of those that it computes what it computes them from.
        """
        return resolve(self.inputs.names, self.derived, given)[1]

    def norm(self, name: str) -> Norm:
        """The norm of a field."""
        names = (*self.inputs.names, *self.targets.names, *self.styles.names)
        norm = self.norms[names.index(name)]
        assert isinstance(norm, Norm)
        return norm

    def _side(
        self, fields: FieldSet, x: Tensor, style: Tensor | None = None, *, inverse: bool = False
    ) -> Tensor:
        if x.shape[1] != fields.channels:
            raise FieldError(
                f"the fields {', '.join(fields.names)} have {fields.channels} channels, but "
                f"{x.shape[1]} were given, or come out of the network"
            )
        slices = fields.slices.items()
        parts = [self._part(name, x[:, own], style, inverse=inverse) for name, own in slices]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _part(self, name: str, part: Tensor, style: Tensor | None, *, inverse: bool) -> Tensor:
        norm = self.norm(name)
        if norm.needs and style is not None:
            slices = self.styles.slices
            known = {need: style[:, slices[need]].flatten() for need in norm.needs}
            return norm.inverse_at(part, known) if inverse else norm.forward_at(part, known)
        y: Tensor = norm.inverse(part) if inverse else norm(part)
        return y

    def encode(self, name: str, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Normalize one field, shape (batch, channel, *space); of samples with these styles."""
        return self._part(name, x, style, inverse=False)

    def decode(self, name: str, y: Tensor, style: Tensor | None = None) -> Tensor:
        """Undo the norm of one field, shape (batch, channel, *space)."""
        return self._part(name, y, style, inverse=True)

    def encode_input(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Normalize inputs, shape (batch, channel, *space); of samples with these styles."""
        return self._side(self.inputs, x, style)

    def decode_input(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Undo the norms of inputs, shape (batch, channel, *space)."""
        return self._side(self.inputs, x, style, inverse=True)

    def encode_target(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Normalize targets, shape (batch, channel, *space); of samples with these styles."""
        return self._side(self.targets, x, style)

    def decode_target(self, y: Tensor, style: Tensor | None = None) -> Tensor:
        """Undo the norms of targets, shape (batch, channel, *space); uncertainties are left out."""
        if self.outputs > 1:
            y = y[:, : self.targets.channels]
        return self._side(self.targets, y, style, inverse=True)

    def decode_spread(self, y: Tensor) -> Tensor | None:
        """Standard deviations of targets, shape (batch, channel), if the network gives them.

        Through a norm that is no straight line: half of what lies between one deviation above and
        one below.
        """
        if self.outputs == 1:
            return None
        mean, log_variance = y.chunk(2, dim=1)
        std = (log_variance / 2).exp()
        above, below = (self._side(self.targets, mean + s, inverse=True) for s in (std, -std))
        return (above - below).abs() / 2

    def encode_style(self, style: Tensor) -> Tensor:
        """Normalize styles, shape (batch, style_chan)."""
        return self._side(self.styles, style)

    def style_arguments(self, style: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """What the network is called with beside its input.

        Args:
            style: Physical values, shape (batch, style_chan); None if it takes no styles.
            dtype: What they are normalized to.

        Raises:
            FieldError: If styles are missing, or there are others.
        """
        if (style is None) != (len(self.styles) == 0):
            raise FieldError(
                f"the emulator takes {', '.join(self.styles.names) or 'no'} styles, but "
                f"{'none were' if style is None else 'some were'} given; they are the second "
                f"argument, of shape (batch, style)"
            )
        return () if style is None else (self.encode_style(style).to(dtype),)

    def forward(self, x: Tensor | Mapping[str, Any], style: Tensor | None = None) -> Any:
        """Physical inputs to physical outputs.

        Args:
            x: Either windows of the inputs, a tensor (batch, channel, *space), of which the
                output keeps what the footprint leaves; or whole fields, as `apply` takes them.
            style: With windows, physical values of the styles, shape (batch, style_chan).

        Returns:
            Windows of the targets, or whole fields.

        Raises:
            FieldError: If a field is missing, unknown or has other channels.
            GeometryError: If shapes do not fit.
        """
        if isinstance(x, Tensor):
            more = self.style_arguments(style, x.dtype)
            return self.decode_target(self.model(self.encode_input(x, style), *more), style)
        if style is not None:
            raise FieldError("with whole fields, styles are given by name, as the fields are")
        return self.apply(x)

    def apply(
        self,
        fields: Any,
        *,
        domain: Domain | None = None,
        other_grid: bool = False,
        settings: Settings | None = None,
    ) -> Any:
        """Apply it to whole fields of any size, tile by tile; the tiles do not show in the result.

        Args:
            fields: An xarray Dataset; or, by name, arrays or tensors of shape (channel, *space) or,
                of one channel, (*space). What inputs are derived from, instead of them, will do.
                Styles are numbers by name; of a Dataset, variables without the axes of the grid, or
                attributes.
            domain: What lies beyond the edges of the fields, if other than in training.
            other_grid: Whether periodic axes and cell size may differ from the training's.
            settings: Memory, tiles, precision, …; default: its own.

        Returns:
            The targets, as what was given: a Dataset with coordinates and attributes, or arrays or
            tensors by name, of shape (channel, *space). On axes that are not periodic, where
            nothing may be made up, the cells that see no cell beyond the edges. Labels and
            parameters of the whole are numbers by name, shape (channel,): of labels the logits.

        Raises:
            FieldError: If a field is missing, unknown, has other channels or units, or holds NaN.
            GeometryError: If shapes or grids do not fit, or the model cannot be tiled.
        """
        if self.targets.of_run:
            if not isinstance(fields, Mapping) or isinstance(fields, xr.Dataset) or domain:
                raise FieldError(
                    f"{', '.join(self.targets.names)} of one sample come of whole fields by name, "
                    f"{{{self.inputs.names[0]!r}: array}}; of files, with `m2m apply EMULATOR DATA "
                    f"-o table.nc` or map2map.predictions.predict_runs"
                )
            return apply_whole(self, fields)
        return apply_fields(self, fields, domain, settings or self.settings, other_grid=other_grid)

    def derivative(
        self,
        fields: Any,
        by: str,
        *,
        domain: Domain | None = None,
        other_grid: bool = False,
        settings: Settings | None = None,
    ) -> Any:
        """The derivative of its targets with respect to a style or an input, of whole fields.

        It is exact, by forward-mode differentiation, and tiled as the targets are.

        Args:
            fields: As for `apply`.
            by: Name of the style; or of the input, of which all values in all cells change alike.
            domain: Likewise.
            other_grid: Likewise.
            settings: Likewise.

        Returns:
            By name, ``TARGET_by_NAME``, as `apply` gives targets: units of the target per unit of
            what it is derived by.

        Raises:
            FieldError, GeometryError: As by `apply`.
        """
        made = Derivative(self, by)
        return apply_fields(made, fields, domain, settings or self.settings, other_grid=other_grid)

    def velocity(
        self,
        fields: Any,
        *,
        Om: float | None = None,
        domain: Domain | None = None,
        other_grid: bool = False,
        settings: Settings | None = None,
    ) -> Any:
        """The peculiar velocity [km/s] of displaced particles, from the growth of displacements.

        The targets are comoving displacements [Mpc/h] of particles from where they were at first,
        and there is a style of the name ``z``, the redshift; see
        `map2map.physics.cosmology.velocity_of_slope`.

        Args:
            fields: As for `apply`.
            Om: Matter density, if there is no style of that name.
            domain: As for `apply`.
            other_grid: Likewise.
            settings: Likewise.

        Returns:
            By name, ``TARGET_velocity``, as `apply` gives targets.

        Raises:
            FieldError, GeometryError: As by `apply`.
        """
        made = Velocity(self, Om)
        return apply_fields(made, fields, domain, settings or self.settings, other_grid=other_grid)

    def ensemble(
        self,
        fields: Any,
        members: int,
        *,
        domain: Domain | None = None,
        other_grid: bool = False,
        settings: Settings | None = None,
    ) -> Any:
        """Several outputs for the same fields, of an emulator that draws random numbers.

        Args:
            fields: As for `apply`.
            members: How many; member m is what `apply` gives for the settings' seed and m more.
            domain: As for `apply`.
            other_grid: Likewise.
            settings: Likewise; with the seed, ``Settings(Running(seed=1))``.

        Returns:
            As of `apply`, with an axis ``member`` before all others.

        Raises:
            RecipeError: If it draws none, so that all would be the same.
            FieldError, GeometryError: As of `apply`.
        """
        require_noise(self)
        if members < 1:
            raise RecipeError(f"an ensemble has at least 1 member, not {members}")
        settings = settings or self.settings
        made = [
            self.apply(
                fields, domain=domain, other_grid=other_grid, settings=settings.of_member(member)
            )
            for member in range(members)
        ]
        if isinstance(made[0], xr.Dataset):
            return xr.concat(made, dim="member").assign_coords(member=np.arange(members))
        stack: Any = torch.stack if isinstance(next(iter(made[0].values())), Tensor) else np.stack
        return {name: stack([each[name] for each in made]) for name in made[0]}

    def card(self) -> Card:
        """What the emulator says about itself."""
        names = (*self.inputs.names, *self.targets.names, *self.styles.names)
        return Card(
            format=FORMAT,
            inputs=self.inputs.as_dicts(),
            targets=self.targets.as_dicts(),
            norms={name: describe(self.norm(name)) for name in names},
            model=self.model_spec,
            footprint=asdict(self.footprint),
            grid=asdict(self.domain),
            training=self.training_record,
            scores=self.scores,
            versions=self.versions,
            derived={name: describe(how) for name, how in self.derived.items()},
            styles=self.styles.as_dicts(),
            style_range=self.style_range,
            cells=None if self.cells is None else list(self.cells),
        )

    def save(self, path: Path | str) -> None:
        """Write one file that needs no other: no statistics, no recipe, no data folder.

        Raises:
            SaveError: If it cannot be written; a former file is unchanged.
        """
        path = Path(path)
        card = json.dumps(self.card().entries())
        # copies, because a field that is input and target has one norm under two names
        weights = {
            name: value.detach().cpu().contiguous().clone()
            for name, value in self.state_dict().items()
        }
        with replacing(path) as temporary:
            try:
                save_file(weights, temporary, metadata={"map2map": card})
            except safetensors.SafetensorError as error:
                raise OSError(str(error)) from error
            # safetensors keeps files private; share this one as any other that the user writes
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        trust: tuple[str, ...] = (),
        callback_at: Path | None = None,
    ) -> "Emulator":
        """Read an emulator; needs nothing but its file.

        Args:
            path: The file.
            trust: Import paths outside map2map and torch.nn that its card may import.
            callback_at: Folder with the user's code that its card needs.

        Raises:
            ArtefactError: If it is no emulator, its card is not trusted, or its weights do not fit.
        """
        card = Card.read(path)
        emulator = cls.of_card(card, path, trust=trust, callback_at=callback_at)
        with safetensors.safe_open(path, framework="pt") as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        try:
            emulator.load_state_dict(weights)
        except RuntimeError as error:
            first = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
            raise ArtefactError(f"the card and the weights of {path} disagree: {first}") from error
        return emulator.eval()

    @classmethod
    def of_card(
        cls,
        card: Card,
        path: Path | str,
        model: nn.Module | None = None,
        *,
        trust: tuple[str, ...] = (),
        callback_at: Path | None = None,
    ) -> "Emulator":
        """What a card describes, norms fitted, but with the network as it is made.

        Args:
            card: The card.
            path: The file that it is from, for messages.
            model: The network, if it is made already.
            trust: Import paths outside map2map and torch.nn that the card may import.
            callback_at: Folder with the user's code that the card needs.

        Raises:
            ArtefactError: If the card is not trusted, or contradicts itself.
        """
        norms = {
            name: build(spec, trust=trust, callback_at=callback_at)
            for name, spec in card.norms.items()
        }
        fields = [str(entry.get("name")) for entry in (*card.inputs, *card.targets, *card.styles)]
        if set(norms) != set(fields) or not all(isinstance(n, Norm) for n in norms.values()):
            raise ArtefactError(
                f"the card of {path} has norms of {', '.join(norms) or 'nothing'}, but its fields "
                f"are {', '.join(fields)}; every field has one, if only the identity"
            )
        model = model or build(card.model, trust=trust, callback_at=callback_at)
        derived = {
            name: build(spec, base=Derived, trust=trust, callback_at=callback_at)
            for name, spec in card.derived.items()
        }
        emulator = cls(
            FieldSet.from_dicts(card.inputs),
            FieldSet.from_dicts(card.targets),
            {name: norm for name, norm in norms.items() if isinstance(norm, Norm)},
            model,
            Domain(**card.grid),
            card.model,
            derived,
            FieldSet.from_dicts(card.styles),
        )
        emulator.style_range = card.style_range
        emulator.cells = None if card.cells is None else tuple(card.cells)
        check_channels(path, emulator)
        check_footprint(path, card.footprint, emulator.footprint)
        emulator.training_record, emulator.scores = card.training, card.scores
        emulator.versions = card.versions
        return emulator


def apply_fields(
    emulator: Applicable,
    fields: Any,
    domain: Domain | None,
    settings: Settings,
    *,
    other_grid: bool,
) -> Any:
    """Apply an emulator, or its derivative, to a Dataset or to arrays by name."""
    if isinstance(fields, xr.Dataset):
        return apply_dataset(emulator, fields, domain, settings, other_grid=other_grid)
    if not isinstance(fields, Mapping):
        raise FieldError(
            f"whole fields are given by name, {{{emulator.inputs.names[0]!r}: array}}, or as an "
            f"xarray Dataset, not as a {type(fields).__name__}"
        )
    if domain is not None:
        domain_of_input(emulator, domain, other_grid=other_grid)
    warn_outside(emulator, [style_of(emulator, fields)])
    return apply_arrays(emulator, fields, domain, settings)


def check_channels(path: Path | str, emulator: Emulator) -> None:
    """Refuse a card whose fields have other channels than its network says that it has.

    Raises:
        ArtefactError: If they differ.
    """
    sides = {"in_chan": emulator.inputs, "out_chan": emulator.targets}
    for name, fields in sides.items():
        channels = getattr(emulator.model, name, None)
        outputs = emulator.outputs if fields is emulator.targets else 1
        if isinstance(channels, int) and channels != outputs * fields.channels:
            raise ArtefactError(
                f"the card of {path} and its network disagree: {', '.join(fields.names)} have "
                f"{fields.channels} channels, but the network has {name} {channels}"
            )


def check_footprint(path: Path | str, told: Any, found: Footprint) -> None:
    """Refuse a card whose footprint is not that of its network.

    Raises:
        ArtefactError: If it is another, or none.
    """
    known = json.loads(json.dumps(asdict(found)))
    if isinstance(told, dict):
        # cards from before there were such models do not say so
        told = {"reduces": False, "sizes": None, "ragged": False} | told
    agrees = isinstance(told, dict) and all(known.get(key) == told.get(key) for key in known)
    if not agrees:
        raise ArtefactError(
            f"the card of {path} tells the footprint {told}, but its network has {known}; the card "
            f"was changed, or written by another version of the network"
        )
