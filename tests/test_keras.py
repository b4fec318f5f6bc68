"""Networks against Keras itself, where it is installed: what it reads, and what it has saved."""

import os
import warnings

import numpy as np
import pytest
import torch

from map2map.keras_h5.networks import layers_of, model_of
from map2map.keras_h5.reading import read_network
from map2map.keras_h5.writing import write_layers
from map2map.models import PaddedConvNet, PaddedUNet


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras", reason="Keras is not installed (it comes with dev)")


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def compare(model, network, x):
    """Outputs of ours and theirs, for (batch, y, x, channel)."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        theirs = np.asarray(network(x).cpu())
        ours = model.eval()(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert ours.shape == theirs.shape
    rms = float(np.sqrt(np.mean(theirs.astype(np.float64) ** 2)))
    assert rms > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * rms)


@pytest.mark.parametrize(
    "model",
    [
        PaddedConvNet(5, 6),
        PaddedConvNet(3, 2, width=4, depth=3, kernel_size=5, slope=0.0, dropout=0.2),
        PaddedConvNet(24, 1, width=8, depth=2, kernel_size=1, slope=1.0),
        PaddedUNet(3, 2, width=8),
        PaddedUNet(2, 3, width=3, levels=2, slope=0.1),
    ],
    ids=["convnet", "relu", "linear", "unet", "shallow"],
)
def test_keras_loads_what_is_written_and_computes_the_same(keras, tmp_path, model):
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    write_layers(tmp_path / "model.h5", layers_of(model), getattr(model, "dropout", 0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = keras.saving.load_model(tmp_path / "model.h5")
    assert network.count_params() == sum(p.numel() for p in model.parameters())
    compare(model, network, noise(2, 16, 24, model.in_chan))


def saved(keras, network, path):
    """With biases as if it had been trained; Keras advises against the format."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for layer in network.layers:
            if weights := layer.get_weights():
                layer.set_weights([weights[0], noise(*weights[1].shape)])
        network.compile("adam", "mae", metrics=["mae", "mse"])
        network.save(path)
    return model_of(read_network(path))


def test_a_convnet_that_keras_has_saved_is_read(keras, tmp_path):
    layers = keras.layers
    shared = layers.LeakyReLU(negative_slope=0.01)
    x = inputs = keras.Input((None, None, 3))
    for _ in range(3):
        x = layers.Dropout(0.1)(shared(layers.Conv2D(4, 3, padding="same")(x)))
    network = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    model = saved(keras, network, tmp_path / "model.h5")
    assert isinstance(model, PaddedConvNet)
    assert (model.width, model.depth, model.slope, model.dropout) == (4, 3, 0.01, 0.1)
    compare(model, network, noise(2, 9, 14, 3))


def test_a_sequential_model_that_keras_has_saved_is_read(keras, tmp_path):
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(4, 5, padding="same", activation="leaky_relu"),
            layers.Conv2D(4, 5, padding="same", activation="leaky_relu"),
            layers.Conv2D(2, 1, padding="same"),
        ]
    )
    model = saved(keras, network, tmp_path / "model.h5")
    assert (model.kernel_size, model.slope, model.depth) == (5, 0.2, 2)
    compare(model, network, noise(2, 9, 14, 3))


def test_a_unet_that_keras_has_saved_is_read(keras, tmp_path):
    """Layer by layer, as 2Dto2D-DLE's."""
    layers = keras.layers

    def conv(x, chan):
        return layers.LeakyReLU(negative_slope=0.3)(layers.Conv2D(chan, 3, padding="same")(x))

    x = inputs = keras.Input((None, None, 3))
    skips = []
    for level in range(3):
        x = layers.MaxPooling2D((2, 2))(x) if level else x
        x = conv(conv(x, 4 * 2**level), 4 * 2**level)
        skips.append(x)
    skips.pop()
    for level in (1, 0):
        chan = 4 * 2**level
        x = layers.Conv2DTranspose(chan, 3, strides=(2, 2), padding="same")(x)
        x = conv(layers.LeakyReLU(negative_slope=0.3)(x), chan)
        x = layers.Concatenate(axis=3)([x, skips.pop()])
        x = conv(conv(x, chan), chan)
    output = layers.Conv2D(2, 1, padding="same", activation="linear", name="unet_output")(x)
    network = keras.Model(inputs, output)
    model = saved(keras, network, tmp_path / "model.h5")
    assert isinstance(model, PaddedUNet)
    assert (model.width, model.levels, model.slope) == (4, 3, 0.3)
    compare(model, network, noise(2, 12, 20, 3))
