"""AI4SIM's networks, written from their description, as plainly as can be; names are made up."""

import torch
import torch.nn.functional as F
from torch import nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
UP = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def twice(ndim, before, after):
    layers = []
    for chan in (before, after):
        layers += [CONV[ndim](chan, after, 3, padding=1), NORM[ndim](after), nn.ReLU()]
    return nn.Sequential(*layers)


class TheirUNet(nn.Module):
    def __init__(self, before, after, ndim, levels=3, root=32):
        super().__init__()
        self.ndim = ndim
        self.encoder = nn.ModuleList([twice(ndim, before, root)])
        for level in range(levels - 1):
            chan = root * 2**level
            self.encoder.append(twice(ndim, chan, 2 * chan))
        self.decoder = nn.ModuleList()
        for level in reversed(range(levels - 1)):
            chan = root * 2**level
            pair = {
                "up": UP[ndim](2 * chan, chan, 2, stride=2),
                "conv": twice(ndim, 2 * chan, chan),
            }
            self.decoder.append(nn.ModuleDict(pair))
        self.final = twice(ndim, root, after)

    def forward(self, x):
        stored = [self.encoder[0](x)]
        for block in self.encoder[1:]:
            stored.append(block(POOL[self.ndim](stored[-1], 2)))
        y = stored.pop()
        for block in self.decoder:
            skip, y = stored.pop(), block["up"](y)
            pad = []
            for axis in range(x.ndim - 1, 1, -1):
                missing = skip.shape[axis] - y.shape[axis]
                pad += [missing // 2, missing - missing // 2]
            y = block["conv"](torch.cat([skip, F.pad(y, pad)], dim=1))
        return self.final(y)


class Radiation(nn.Module):
    """Normalization and U-Net over (column, level, feature)."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("x_mean", mean)
        self.register_buffer("x_std", std)
        self.net = TheirUNet(47, 6, 1)

    def forward(self, x):
        return self.net(((x - self.x_mean) / (self.x_std + 1e-8)).swapaxes(1, 2)).swapaxes(1, 2)


class MLP(nn.Module):
    def __init__(self, before=191, hidden=256, after=126):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(before, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, after),
        )  # fmt: skip

    def forward(self, x):
        return self.net(x)


class CNN(nn.Module):
    """Of (column, 191), three profiles and two scalars."""

    def __init__(self, features=16, kernel=1, pool=2, levels=63):
        super().__init__()
        self.levels, self.pool = levels, pool
        self.a = nn.Conv1d(5, features, kernel)
        self.b = nn.Conv1d(features, 2 * features, kernel)
        left = self.cells(torch.zeros(1, 5, levels)).shape[1]
        self.c, self.d = nn.Linear(left, 2 * levels), nn.Linear(2 * levels, 2 * levels)

    def cells(self, x):
        x = F.max_pool1d(F.relu(self.a(x)), self.pool)
        return F.max_pool1d(F.relu(self.b(x)), self.pool).flatten(1)

    def forward(self, x):
        n = self.levels
        scalars = [x[:, 3 * n + i, None].repeat(1, n) for i in (0, 1)]
        profiles = torch.stack([x[:, :n], x[:, n : 2 * n], x[:, 2 * n : 3 * n], *scalars], dim=1)
        return self.d(self.c(self.cells(profiles)))


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        n = x.shape[1] // self.heads
        x = x.swapaxes(1, 2)
        q, k, v = self.q(x), self.k(x), self.v(x)
        parts = []
        for i in range(0, x.shape[2], n):
            a, b, c = (t[..., i : i + n] for t in (q, k, v))
            weights = torch.softmax(a @ b.swapaxes(1, 2) / n**0.5, dim=2)
            parts.append(weights @ c)
        return (x + self.o(torch.cat(parts, dim=2))).swapaxes(1, 2)


class AttentionCNN(nn.Module):
    """Of (column, 47, level), for each band a flux down less up, and down plus up."""

    def __init__(self, hidden=128, heads=8, kernel=5):
        super().__init__()
        chans = [47, *[hidden] * 12]
        dilations = [1, 2, 4, 8, *[1] * 8]
        self.convs = nn.ModuleList(
            nn.Conv1d(chans[i], hidden, kernel, padding="same", dilation=dilations[i])
            for i in range(12)
        )
        self.attend = nn.ModuleList(SelfAttention(hidden, heads) for _ in range(2))
        self.conv_lw, self.conv_sw = nn.Conv1d(hidden, 2, 1), nn.Conv1d(hidden, 2, 1)
        self.linear_lw, self.linear_sw = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        for i, conv in enumerate(self.convs):
            x = F.silu(conv(x))
            if i in (3, 11):
                x = self.attend[i // 8](x)
        lw = self.linear_lw(self.conv_lw(x).swapaxes(1, 2))
        sw = self.linear_sw(self.conv_sw(x).swapaxes(1, 2))
        return lw, sw


def settled(module, seed=0):
    """In eval mode and float64, with weights and statistics as if it were trained."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        parameter.data.normal_(0, spread, generator=generator)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for values in (layer.weight.data, layer.running_var):
                values.uniform_(0.5, 1.5, generator=generator)
            layer.running_mean.normal_(0, 0.3, generator=generator)
    return module.double().eval()


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())
