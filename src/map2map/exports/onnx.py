"""ONNX: run by ONNX Runtime in C, C++, Fortran, Java, JavaScript and Python."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from map2map.emulator import Emulator
from map2map.errors import ArtefactError, RecipeError
from map2map.exports.graph import metadata, quiet, trace
from map2map.typing import Shape

__all__ = ["PACKAGES", "SUFFIX", "export", "run"]
STYLES = True
"""Whether a file can hold a network that takes styles."""

SUFFIX = ".onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OLDEST = 18
"""The oldest version of ONNX's operators that PyTorch writes."""

LARGEST = 2**31 - 1
"""Bytes that one ONNX file may have."""


def export(
    emulator: Emulator, path: Path, *, size: Shape | None = None, opset: int = OLDEST
) -> None:
    """Write a graph with one input and one output per field, called as the field.

    Styles are inputs of shape (batch, 1).

    Args:
        emulator: What to export.
        path: The file.
        size: Input cells on each axis, if they are to be fixed.
        opset: Version of ONNX's operators; a newer one needs a newer runtime.

    Raises:
        RecipeError: If the operators are too old.
        ArtefactError: If a field is both input and target, or the file becomes too large.
    """
    if opset < OLDEST:
        raise RecipeError(f"`opset` is {opset}, but PyTorch writes {OLDEST} and newer")
    inputs = (*emulator.inputs.names, *emulator.styles.names)
    outputs = emulator.targets.names
    if set(inputs) & set(outputs):
        raise ArtefactError(
            f"{', '.join(sorted(set(inputs) & set(outputs)))} is an input and a target, but names "
            f"in an ONNX graph must differ; rename a field"
        )
    weights = sum(p.numel() * 4 for p in emulator.parameters())
    if weights > LARGEST:
        raise ArtefactError(
            f"the weights take {weights} bytes, but an ONNX file can have {LARGEST}; "
            f"use --to torch-export"
        )
    program = trace(emulator, size)
    with quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=inputs,
            output_names=outputs,
            custom_translation_table=ACCURATE,
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    symbols = dimension_names(program)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda m: symbols.get(m[0], m[0]), dim.dim_param)
    for key, text in metadata(emulator).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    path.write_bytes(model.SerializeToString())


def run(path: Path, fields: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run a file on windows of physical fields."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    made = session.run(names, {name: x.numpy() for name, x in fields.items()})
    return {name: torch.from_numpy(y) for name, y in zip(names, made, strict=True)}


def dimension_names(program: ExportedProgram) -> dict[str, str]:
    """What PyTorch calls the open dimensions, and what to call them: batch, n0, n1."""
    first = program.graph_signature.user_inputs[0]
    (shape,) = [n.meta["val"].shape for n in program.graph.nodes if n.name == first]
    return {
        str(size): f"n{axis - 2}" if axis else "batch"
        for axis, size in enumerate(shape)
        if not str(size).isdigit()
    }


def log1p(x: Any) -> Any:
    """``log(1 + x)`` to the last digit: what 1 + x has lost is put right (Kahan).

    ONNX has no log1p. PyTorch writes log(1 + x), which has lost all digits of an x of 1e-8.
    """
    from onnxscript import opset18 as op

    u = op.Add(x, 1.0)
    kept = op.Sub(u, 1.0)
    near = op.Where(op.Equal(kept, 0.0), x, op.Mul(op.Log(u), op.Div(x, kept)))
    return op.Where(op.Less(op.Abs(x), 0.5), near, op.Log(u))


def expm1(x: Any) -> Any:
    """``exp(x) - 1`` to the last digit, likewise."""
    from onnxscript import opset18 as op

    u = op.Exp(x)
    less = op.Sub(u, 1.0)
    near = op.Where(op.Equal(u, 1.0), x, op.Mul(less, op.Div(x, op.Log(u))))
    return op.Where(op.Less(op.Abs(x), 0.5), near, less)


ACCURATE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.log1p.default: log1p,
    torch.ops.aten.expm1.default: expm1,
}
