"""Keras's HDF5 files, made here by hand as Keras 2 writes them, and what is read and written."""

import json

import h5py
import numpy as np
import pytest
import torch

from map2map.errors import ArtefactError
from map2map.keras_h5.networks import layers_of, model_of
from map2map.keras_h5.reading import read_network
from map2map.keras_h5.writing import write_layers
from map2map.models import ConvNet, PaddedConvNet, PaddedUNet

LEAKY = {"class_name": "LeakyReLU", "alpha": float(np.float32(0.01))}


def layer(class_name, name, *calls, **config):
    """A layer as Keras 2 lists it, that is called once for each of ``calls``, tuples of names."""
    nodes = [[[*(source if isinstance(source, list) else [source, 0, 0]), {}] for source in call]
             for call in calls]  # fmt: skip
    config = {"name": name, "dtype": "float32"} | config
    return {"class_name": class_name, "name": name, "config": config, "inbound_nodes": nodes}


def conv(name, source, filters, width=3, **config):
    config = {"filters": filters, "kernel_size": [width, width], "padding": "same"} | config
    return layer("Conv2D", name, (source,), **config)


def cnn(**change):
    """Two hidden layers that share an activation, as 2Dto2D-DLE saves them; 3 fields to 2."""
    layers = {
        "input_1": layer("InputLayer", "input_1", batch_input_shape=[None, None, None, 3]),
        "conv2d": conv("conv2d", "input_1", 4, strides=[1, 1], activation="linear"),
        "act": layer("LeakyReLU", "act", ("conv2d",), ("conv2d_1",), alpha=LEAKY["alpha"]),
        "dropout": layer("Dropout", "dropout", ("act",), rate=0.2),
        "conv2d_1": conv("conv2d_1", "dropout", 4),
        "dropout_1": layer("Dropout", "dropout_1", (["act", 1, 0],), rate=0.2),
        "conv2d_2": conv("conv2d_2", "dropout_1", 2, 1, padding="valid"),
    }
    return layers | change


SHAPES = {"conv2d": (3, 3, 3, 4), "conv2d_1": (3, 3, 4, 4), "conv2d_2": (1, 1, 4, 2)}


def save(path, layers, shapes=SHAPES, output="conv2d_2", **model):
    """Write a file, and give its weights."""
    rng = np.random.default_rng(0)
    weights = {}
    config = {
        "name": "m",
        "layers": list(layers.values()),
        "input_layers": [["input_1", 0, 0]],
        "output_layers": [[output, 0, 0]],
    }
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.4.0"
        file.attrs["model_config"] = json.dumps(
            {"class_name": "Functional", "config": config} | model
        )
        group = file.create_group("model_weights")
        for name, shape in shapes.items():
            kernel = rng.normal(size=shape).astype("f4")
            bias = rng.normal(size=shape[-1]).astype("f4")
            inside = group.create_group(name)
            inside.attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
            inside[f"{name}/kernel:0"], inside[f"{name}/bias:0"] = kernel, bias
            weights[name] = kernel, bias
    return weights


def convolved(x, weights):
    """A convolution that pads, of (y, x, channel) in float64."""
    kernel, bias = weights
    half = kernel.shape[0] // 2
    padded = np.pad(x, [(half, half), (half, half), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(0, 1))
    return np.einsum("yxcij,ijco->yxo", windows, kernel.astype("f8")) + bias


def leaky(x, slope=0.01):
    return np.where(x > 0, x, slope * x)


def run(model, x):
    """The output (y, x, channel) of a model for an input (y, x, channel)."""
    with torch.no_grad():
        y = model.double().eval()(torch.from_numpy(x).permute(2, 0, 1)[None])
    return y[0].permute(1, 2, 0).numpy()


def noise(*shape):
    return np.random.default_rng(1).normal(size=shape)


def test_a_convnet_is_read_with_its_shared_activation(tmp_path):
    weights = save(tmp_path / "model.h5", cnn())
    network = read_network(tmp_path / "model.h5")
    assert (network.version, network.dropout) == ("2.4.0", 0.2)
    model = model_of(network)
    assert isinstance(model, PaddedConvNet)
    assert (model.in_chan, model.out_chan, model.width, model.depth) == (3, 2, 4, 2)
    assert (model.kernel_size, model.slope, model.dropout, model.ndim) == (3, 0.01, 0.2, 2)
    x = noise(6, 9, 3)
    y = leaky(convolved(leaky(convolved(x, weights["conv2d"])), weights["conv2d_1"]))
    expected = convolved(y, weights["conv2d_2"])
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("as_list", [False, True])
def test_a_sequential_model_with_activations_inside_is_read(tmp_path, as_list):
    shape = [None, None, None, 3]
    layers = {
        "conv2d": conv("conv2d", "", 4, activation="relu", batch_input_shape=shape),
        "conv2d_1": conv("conv2d_1", "", 4, activation="relu"),
        "conv2d_2": conv("conv2d_2", "", 2, 1),
    }
    for each in layers.values():
        del each["inbound_nodes"]
    config = list(layers.values()) if as_list else {"name": "m", "layers": list(layers.values())}
    weights = save(tmp_path / "model.h5", layers, class_name="Sequential", config=config)
    model = model_of(read_network(tmp_path / "model.h5"))
    assert model.slope == 0
    x = noise(5, 4, 3)
    y = leaky(convolved(leaky(convolved(x, weights["conv2d"]), 0), weights["conv2d_1"]), 0)
    np.testing.assert_allclose(run(model, x), convolved(y, weights["conv2d_2"]), atol=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        PaddedConvNet(3, 2, width=4, depth=3),
        PaddedConvNet(1, 1, width=2, depth=1, kernel_size=5, slope=0.0, dropout=0.25),
        PaddedConvNet(2, 2, width=3, depth=2, kernel_size=1, slope=1.0),
        PaddedUNet(3, 2, width=2, levels=2),
        PaddedUNet(1, 3, width=3, levels=4, slope=0.1),
    ],
    ids=["convnet", "relu", "linear", "unet", "deep"],
)
def test_what_is_written_reads_back_bit_for_bit(tmp_path, model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    write_layers(tmp_path / "m.h5", layers_of(model), getattr(model, "dropout", 0.0))
    network = read_network(tmp_path / "m.h5")
    assert list(network.layers) == layers_of(model)
    again = model_of(network)
    assert type(again) is type(model)
    names = ("in_chan", "out_chan", "width", "depth", "levels", "kernel_size", "slope", "dropout")
    for name in names:
        assert getattr(again, name, None) == getattr(model, name, None)
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_what_is_written_is_the_least_that_keras_reads(tmp_path):
    model = PaddedUNet(3, 2, width=2, levels=3)
    write_layers(tmp_path / "m.h5", layers_of(model))
    with h5py.File(tmp_path / "m.h5") as file:
        assert set(file.attrs) == {
            "keras_version", "backend", "model_config", "written_by",
        }  # fmt: skip
        assert file.attrs["keras_version"].startswith("2.")
        assert file.attrs["backend"] == "tensorflow"
        assert set(file) == {"model_weights"}
        config = json.loads(file.attrs["model_config"])["config"]
        names = [entry["name"] for entry in config["layers"]]
        group = file["model_weights"]
        # without them, Keras 2 turns the kernels of transposed convolutions (seen in 2.15.0)
        assert group.attrs["keras_version"] == file.attrs["keras_version"]
        assert group.attrs["backend"] == "tensorflow"
        assert [name.decode() for name in group.attrs["layer_names"]] == names
        for name in names:
            stored = [entry.decode() for entry in group[name].attrs["weight_names"]]
            has = any(word in name for word in ("_0", "_1", "trans_conv", "output"))
            has = has and not name.endswith("activation") and name != "input_1"
            assert stored == ([f"{name}/kernel:0", f"{name}/bias:0"] if has else [])
            assert all(group[name][path].dtype == np.float32 for path in stored)
        assert {
            "unet_down0_0", "unet_down0_1", "unet_down1_conv_0", "unet_down2_conv_1",
            "unet_up0_decode_trans_conv", "unet_up1_conv_before_concat_0",
            "unet_up1_conv_after_concat_1", "unet_output",
        } <= set(names)  # fmt: skip
        kernel = group["unet_up0_decode_trans_conv/unet_up0_decode_trans_conv/kernel:0"]
        assert kernel.shape == (3, 3, 4, 8), "out before in"
        np.testing.assert_array_equal(
            kernel[2, 1, 3, 5], model.up[0].grow.weight.detach()[5, 3, 2, 1]
        )
        first = group["unet_down0_0/unet_down0_0/kernel:0"]
        np.testing.assert_array_equal(
            first[0, 2, 1, 0], model.down[0].first.weight.detach()[0, 1, 0, 2]
        )


def test_a_unet_of_one_level_is_a_convnet(tmp_path):
    model = PaddedUNet(2, 1, width=3, levels=1)
    write_layers(tmp_path / "m.h5", layers_of(model))
    again = model_of(read_network(tmp_path / "m.h5"))
    assert isinstance(again, PaddedConvNet)
    x = noise(4, 5, 2)
    np.testing.assert_allclose(run(again, x), run(model, x), atol=1e-12)


def act(**config):
    return layer("LeakyReLU", "act", ("conv2d",), ("conv2d_1",), **config)


TWO = {"strides": [2, 2]}
REFUSED = {
    "batch normalization": (
        cnn(dropout=layer("BatchNormalization", "dropout", ("act",))),
        r"layer 'dropout' is of the class BatchNormalization, which is not supported; .* Input",
    ),
    "stride": (
        cnn(conv2d=conv("conv2d", "input_1", 4, **TWO)),
        r"layer 'conv2d' \(Conv2D\) has strides \[2, 2\], .*not supported; it can be \(1, 1\)",
    ),
    "padding": (
        cnn(conv2d=conv("conv2d", "input_1", 4, padding="valid")),
        r"'conv2d' \(Conv2D\) has padding 'valid', which is not supported; it can be 'same'",
    ),
    "default padding": (
        cnn(conv2d=layer("Conv2D", "conv2d", ("input_1",), filters=4, kernel_size=[3, 3])),
        r"has padding None, which is not supported; it can be 'same'",
    ),
    "dilation": (
        cnn(conv2d=conv("conv2d", "input_1", 4, dilation_rate=[2, 2])),
        r"has dilation_rate \[2, 2\]",
    ),
    "groups": (cnn(conv2d=conv("conv2d", "input_1", 4, groups=2)), "has groups 2"),
    "bias": (cnn(conv2d=conv("conv2d", "input_1", 4, use_bias=False)), "has use_bias False"),
    "data format": (
        cnn(conv2d=conv("conv2d", "input_1", 4, data_format="channels_first")),
        "has data_format 'channels_first', .* it can be 'channels_last'",
    ),
    "even kernel": (cnn(conv2d=conv("conv2d", "input_1", 4, 2)), r"kernel_size \[2, 2\].*odd"),
    "oblong kernel": (
        cnn(conv2d=conv("conv2d", "input_1", 4, kernel_size=[3, 5])),
        r"kernel_size \[3, 5\], .* as wide as high",
    ),
    "activation": (
        cnn(conv2d=conv("conv2d", "input_1", 4, activation="tanh")),
        r"layer 'conv2d' \(Conv2D\) has activation 'tanh', which is not supported; it can be 'lin",
    ),
    "activation layer": (
        cnn(act=layer("Activation", "act", ("conv2d",), ("conv2d_1",), activation="gelu")),
        r"layer 'act' \(Activation\) has activation 'gelu'",
    ),
    "slope": (cnn(act=act(alpha=-2)), r"'act' \(LeakyReLU\) has alpha -2, .* from 0 to 1"),
    "bounded": (
        cnn(act=layer("ReLU", "act", ("conv2d",), ("conv2d_1",), max_value=6.0)),
        "has max_value 6.0, which is not supported; it can be None, its default$",
    ),
    "own output": (
        cnn(conv2d=conv("conv2d", "conv2d_1", 4)),
        "depends on its own output",
    ),
    "lost layer": (
        cnn(conv2d=conv("conv2d", "gone", 4)),
        "there is no layer 'gone', but another takes its output",
    ),
    "lost call": (cnn(dropout_1=layer("Dropout", "dropout_1", (["act", 7, 0],))), "IndexError"),
    "input": (
        cnn(input_1=layer("InputLayer", "input_1", batch_input_shape=[None, 3])),
        r"the input has shape \[None, 3\]; it must be \(batch, y, x, channels\)",
    ),
    "filters": (cnn(conv2d=conv("conv2d", "input_1", "4")), "has filters '4'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_layer_that_computes_otherwise_is_refused_by_name(tmp_path, case):
    layers, words = REFUSED[case]
    save(tmp_path / "model.h5", layers)
    with pytest.raises(ArtefactError, match=r"model\.h5[: ].*" + words):
        read_network(tmp_path / "model.h5")


def skip(name="add"):
    return {
        "input_1": layer("InputLayer", "input_1", batch_input_shape=[None, None, None, 3]),
        "conv2d": conv("conv2d", "input_1", 4, activation="relu"),
        "conv2d_1": conv("conv2d_1", "conv2d", 4, activation="relu"),
        "join": layer("Concatenate", "join", ("conv2d_1", "conv2d"), axis=-1),
        "conv2d_2": conv("conv2d_2", "join", 2, 1),
    }


DIFFERENT = {
    "skip": (
        skip(),
        SHAPES | {"conv2d_2": (1, 1, 8, 2)},
        r"layer 'join' is channels put behind each other \(of conv2d_1 and conv2d\), where a "
        r"PaddedConvNet has a convolution of width 1 to 2 channels \(of conv2d_1\)",
    ),
    "slopes": (
        cnn(conv2d_1=conv("conv2d_1", "conv2d", 4), conv2d=conv("conv2d", "input_1", 4),
            act=act(alpha=0.3)),
        SHAPES,
        r"layer 'conv2d_1' is a convolution of width 3 to 4 channels \(of conv2d\), where a "
        r"PaddedConvNet has an activation of slope 0.3",
    ),
    "width": (
        cnn(conv2d_1=conv("conv2d_1", "dropout", 5)),
        SHAPES | {"conv2d_1": (3, 3, 4, 5), "conv2d_2": (1, 1, 5, 2)},
        r"'conv2d_1' is a convolution of width 3 to 5 channels \(of act\), where .* to 4 channels",
    ),
    "last": (
        cnn(conv2d_2=conv("conv2d_2", "dropout_1", 2, 1, activation="relu")),
        SHAPES,
        "behind layer 'conv2d_2' it has an activation of slope 0",
    ),
    "one": (
        {k: v for k, v in skip().items() if k in ("input_1", "conv2d")},
        SHAPES,
        "the network has 1 convolutions; it must have 2 or more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_network_that_is_connected_otherwise_is_refused(tmp_path, case):
    layers, shapes, words = DIFFERENT[case]
    output = "conv2d" if case == "one" else "conv2d_2"
    save(tmp_path / "model.h5", layers, shapes, output)
    network = read_network(tmp_path / "model.h5")
    with pytest.raises(ArtefactError, match=words):
        model_of(network)


def test_a_unet_that_joins_in_the_other_order_is_refused(tmp_path):
    write_layers(tmp_path / "m.h5", layers_of(PaddedUNet(2, 1, width=2, levels=2)))
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        model = json.loads(file.attrs["model_config"])
        (join,) = (e for e in model["config"]["layers"] if e["class_name"] == "Concatenate")
        join["inbound_nodes"][0].reverse()
        file.attrs["model_config"] = json.dumps(model)
    network = read_network(tmp_path / "m.h5")
    with pytest.raises(ArtefactError, match="the network is none that map2map has"):
        model_of(network)


def delete_bias(file):
    del file["model_weights/conv2d_1/conv2d_1/bias:0"]


def rename_bias(file):
    file["model_weights/conv2d_1"].attrs["weight_names"] = [b"conv2d_1/kernel:0"]


def replace_kernel(file, values):
    del file["model_weights/conv2d/conv2d/kernel:0"]
    file["model_weights/conv2d/conv2d/kernel:0"] = values


SPOILT = {
    "shape": (
        lambda file: replace_kernel(file, np.zeros((3, 3, 3, 5), "f4")),
        r"the kernel of layer 'conv2d' is float32 of shape \(3, 3, 3, 5\), but its settings ask "
        r"for float32 of shape \(3, 3, 3, 4\)",
    ),
    "type": (
        lambda file: replace_kernel(file, np.zeros((3, 3, 3, 4), "f8")),
        "the kernel of layer 'conv2d' is float64",
    ),
    "finite": (
        lambda file: replace_kernel(file, np.full((3, 3, 3, 4), np.nan, "f4")),
        "the kernel of layer 'conv2d' is not finite: its training had diverged",
    ),
    "deleted": (delete_bias, "is not what Keras writes, or is damaged"),
    "unnamed": (rename_bias, "there is no bias of layer 'conv2d_1' among its weights"),
    "layer": (
        lambda file: file["model_weights"].pop("conv2d_2"),
        "there are no weights of layer 'conv2d_2'",
    ),
    "weights": (lambda file: file.pop("model_weights"), "is not what Keras writes, or is damaged"),
    "config": (
        lambda file: file.attrs.update({"model_config": "{"}),
        "is not what Keras writes, or is damaged: JSONDecodeError",
    ),
    "nested": (
        lambda file: file.attrs.update({"model_config": "[" * 40000}),
        "is not what Keras writes, or is damaged: RecursionError",
    ),
    "other json": (
        lambda file: file.attrs.update({"model_config": "[1, 2]"}),
        "is not what Keras writes, or is damaged",
    ),
    "class": (
        lambda file: file.attrs.update({"model_config": json.dumps(
            {"class_name": "Mine", "config": {"layers": []}})}),
        "the model is a 'Mine'; Functional and Sequential models can be read",
    ),
    "no config": (lambda file: file.attrs.pop("model_config"), r"it holds no network; save the wh"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_file_gets_one_clear_error(tmp_path, case):
    spoil, words = SPOILT[case]
    save(tmp_path / "model.h5", cnn())
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        spoil(file)
    with pytest.raises(ArtefactError, match=words):
        read_network(tmp_path / "model.h5")


def test_more_than_one_output_or_input_is_refused(tmp_path):
    config = {"layers": list(cnn().values()), "output_layers": [["act", 0, 0], ["conv2d_2", 0, 0]]}
    save(tmp_path / "m.h5", cnn(), config=config)
    with pytest.raises(ArtefactError, match="the model has 2 outputs; one can be read"):
        read_network(tmp_path / "m.h5")
    layers = skip() | {
        "input_2": layer("InputLayer", "input_2", batch_input_shape=[None, None, None, 1]),
        "join": layer("Concatenate", "join", ("conv2d_1", "input_2"), axis=3),
    }
    save(tmp_path / "m.h5", layers, SHAPES | {"conv2d_2": (1, 1, 5, 2)})
    with pytest.raises(ArtefactError, match="the model has 2 inputs; one can be read"):
        read_network(tmp_path / "m.h5")


def test_truncated_and_foreign_files_are_told(tmp_path):
    save(tmp_path / "model.h5", cnn())
    whole = (tmp_path / "model.h5").read_bytes()
    for share in (0, 0.001, 0.1, 0.5, 0.9, 0.999):
        (tmp_path / "short.h5").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ArtefactError, match=r"short\.h5 is not an HDF5 file, or is truncated"):
            read_network(tmp_path / "short.h5")
    with pytest.raises(ArtefactError, match=r"there is no file .*gone\.h5"):
        read_network(tmp_path / "gone.h5")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv2d"]
    with pytest.raises(ArtefactError, match="it holds weights, but no network; save the whole"):
        read_network(tmp_path / "weights.h5")


def test_damaged_bytes_never_end_in_another_error(tmp_path):
    save(tmp_path / "model.h5", cnn())
    whole = (tmp_path / "model.h5").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        spoilt = bytearray(whole)
        start = int(rng.integers(len(whole) - 8))
        spoilt[start : start + 8] = rng.bytes(8)
        (tmp_path / "spoilt.h5").write_bytes(spoilt)
        try:
            read_network(tmp_path / "spoilt.h5")
        except ArtefactError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ConvNet(1, 1, ndim=2, width=2), "holds a PaddedConvNet or a PaddedUNet, not a ConvNet"),
        (
            PaddedConvNet(1, 1, ndim=3, width=2),
            "networks on 2 axes, but this PaddedConvNet is on 3",
        ),
    ],
)
def test_models_that_keras_files_cannot_hold_are_refused(model, words):
    with pytest.raises(ArtefactError, match=words):
        layers_of(model)
