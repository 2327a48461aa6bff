"""Typical wrong answers to the exercises of notebook 02, each with words of its diagnosis."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def add_the_loss(output, depth):
    return output + {1: 17, 2: 43, 3: 95, 4: 199, 5: 407}[depth]


def transposed_convolution(output, depth):
    """Doubles on the way up without losing a pixel."""
    bottom = 5
    while True:
        n, m = bottom, bottom - 4
        for _ in range(depth):
            n, m = 2 * n + 4, 2 * m - 4
        if m >= output:
            return n
        bottom += 1


def next_multiple(output, depth):
    step = 2**depth
    return -(-add_the_loss(output, depth) // step) * step


def always_depth_4(output, depth):
    return 16 * math.ceil((output + 139) / 16) + 60


def one_step_too_large(output, depth):
    return 16 * math.ceil((output + 139) / 16) + 76


def even_kernels_do_not_move(depth):
    return [4, 16, 40, 88][:depth]


def both_sides_alike(depth):
    return [4, 17, 43, 95][:depth]


def input_pixels(depth):
    return [40, 76, 94, 103][:depth]


def shallow_first(depth):
    return [103, 47, 19, 5][:depth]


def depth_4_only(depth):
    return [5, 19, 47, 103][-depth:] + [0] * max(depth - 4, 0)


class Sequential(nn.Module):
    """Right as it stands; the subclasses are wrong."""

    ceil, sixth, norm = True, 100, nn.BatchNorm2d

    def __init__(self, width, map_shape):
        super().__init__()
        rows, columns = ((math.ceil(n / 8) if self.ceil else n // 8) - 2 for n in map_shape)
        self.conv, self.bn = nn.Conv2d(width, width // 2, 3), self.norm(width // 2)
        outputs = (300, 250, 200, 150, 100, 50, 2)
        inputs = (width // 2 * rows * columns, 300, 250, 200, 150, self.sixth, 50)
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in zip(inputs, outputs, strict=True))

    def pool(self, features):
        return F.avg_pool2d(features, 8, ceil_mode=self.ceil, count_include_pad=False)

    def between(self, x):
        return F.relu(x)

    def forward(self, features):
        x = F.relu(self.bn(self.conv(self.pool(features)))).flatten(1)
        for layer in self.layers[:-1]:
            x = self.between(layer(x))
        return self.layers[-1](x)


class WithSkip(Sequential):
    sixth = 400

    def forward(self, features):
        x = F.relu(self.bn(self.conv(self.pool(features)))).flatten(1)
        first = x = F.relu(self.layers[0](x))
        for layer in self.layers[1:5]:
            x = F.relu(layer(x))
        return self.layers[6](F.relu(self.layers[5](torch.cat([first, x], 1))))


class FloorPool(Sequential):
    ceil = False


class NoNorm(Sequential):
    norm = nn.Identity


class ReluAtTheEnd(Sequential):
    def forward(self, features):
        return F.relu(super().forward(features))


class NoRelu(Sequential):
    def between(self, x):
        return x


class MaxPool(Sequential):
    def pool(self, features):
        return F.max_pool2d(features, 8, ceil_mode=True)


class PaperOnly(Sequential):
    def __init__(self, width, map_shape):
        super().__init__(64, (101, 101))


WRONG = {
    "exercise_2_1": [
        (add_the_loss, "199 more is the right loss"),
        (transposed_convolution, "then has 229 pixels, too few"),
        (next_multiple, "an odd number of pixels (105 in encoder 2)"),
        (always_depth_4, "that is the answer for depth 4"),
        (one_step_too_large, "a smaller input does as well"),
        (lambda output, depth: 16 * (output + 139) / 16 + 60.5, "not a whole number"),
    ],
    "exercise_2_2": [
        (even_kernels_do_not_move, "even kernels as if they moved nothing"),
        (both_sides_alike, "as much on both sides"),
        (input_pixels, "pixels of the input"),
        (shallow_first, "the wrong order"),
        (depth_4_only, "depth 1 is not"),
        (lambda depth: [5, 19, 47, 103][:depth], "Called with depth 5 you return 4 crops, expected 5"),
    ],
    "exercise_2_3": [
        (WithSkip, "400 inputs: the skip"),
        (FloorPool, "3200 inputs"),
        (NoNorm, "no batch normalisation"),
        (ReluAtTheEnd, "a ReLU stands after the last layer"),
        (NoRelu, "no ReLU between"),
        (MaxPool, "by their maximum"),
        (PaperOnly, "Built for 8 maps of 48x40"),
    ],
}
