import math

import torch
from torch import nn
from torch.nn import functional as F


class SequentialBranch(nn.Module):
    def __init__(self, width, map_shape):
        super().__init__()
        rows, columns = (math.ceil(n / 8) - 2 for n in map_shape)  # 101 -> 13 -> 11
        self.conv = nn.Conv2d(width, width // 2, 3)
        self.norm = nn.BatchNorm2d(width // 2)
        widths = [width // 2 * rows * columns, 300, 250, 200, 150, 100, 50, 2]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, features):
        x = F.avg_pool2d(features, 8, ceil_mode=True, count_include_pad=False)  # (B, 64, 13, 13)
        x = torch.relu(self.norm(self.conv(x))).flatten(1)  # (B, 3872)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))  # (B, 300), ..., (B, 50)
        return self.layers[-1](x)  # (B, 2)
