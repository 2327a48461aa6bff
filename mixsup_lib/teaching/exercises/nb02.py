"""Exercises of notebook 02: sizes, crops that align, and the branch without its skip."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, close
from mixsup_lib.unet import Geometry

TAKEN = "{case} you take an input of {found:g}"


def _smallest_input(output: int, depth: int) -> int:
    return Geometry(depth, "valid").smallest_input(output)


def _loss(depth: int) -> int:
    """Pixels that a network with `depth` poolings takes off: 199 for depth 4."""
    return 5 * (2**depth - 1) + 4 * 2**depth + 4 * (2**depth - 1)


def _odd(found: float, wanted: float, output: int, depth: int) -> str:
    """The first max-pool that meets an odd number of pixels, in words."""
    sizes = Geometry(depth, "valid").layer_sizes(int(found))
    return next((f"{n} in {name}" for name, n in sizes if name.startswith("encoder") and n % 2), "")


exercise_2_1 = Exercise(
    right=_smallest_input,
    cases={
        f"For an output of {output} at depth {depth}": (output, depth)
        for output, depth in ((240, 4), (101, 4), (102, 4), (1, 4), (100, 2), (64, 1), (33, 3), (300, 5))
    },
    mistakes=(
        Mistake(
            lambda output, depth: output,
            TAKEN + ": unpadded convolutions cost pixels.",
            "the table of sizes.",
        ),
        Mistake(
            lambda output, depth: _smallest_input(output, depth) + 0.5,
            TAKEN + ": not a whole number of pixels.",
            "how you divide: `//` or `math.ceil`.",
            when=lambda found, wanted, *_: found != int(found),
        ),
        Mistake(
            lambda output, depth: output + _loss(depth),
            TAKEN
            + ": {seen} more is the right loss, but at this input a max-pool meets an odd number of pixels.",
            "which inputs fit; count in steps of the bottom's size b rather than backwards from the output.",
            when=lambda found, wanted, output, depth: (
                found != wanted and found == output + _loss(depth) and _loss(depth)
            ),
        ),
        Mistake(
            lambda output, depth: _smallest_input(output, 4),
            TAKEN + ": that is the answer for depth 4.",
            "where your function uses its second argument.",
        ),
        Mistake(
            lambda output, depth: -(-(output + _loss(depth)) // 2**depth) * 2**depth,
            TAKEN + ": a max-pool meets an odd number of pixels ({seen}).",
            "the sizes on the way down: each one before a max-pool must be even.",
            when=_odd,
        ),
        Mistake(
            lambda output, depth: _smallest_input(output, depth) - 2**depth,
            TAKEN + ": the output then has {seen:g} pixels, too few.",
            "the way up: every level doubles, then loses 1 and 4 pixels.",
            when=lambda found, wanted, output, depth: found < wanted and found - _loss(depth),
        ),
    ),
    says=TAKEN + ": it fits, but a smaller input does as well.",
    look="the smallest b for which the output is large enough; by how much does the input change with b?",
    praise="240 pixels in one pass need an input of 444, which gives 245: the library's whole-slice pass.",
)


exercise_2_2 = Exercise(
    right=lambda depth: list(Geometry(depth, "valid").skip_crops()),
    cases={f"depth {depth}": (depth,) for depth in (4, 1, 2, 3, 5)},
    mistakes=(
        Mistake(
            lambda depth: [5, 19, 47, 103][:depth],
            "Called with {case} you return {seen}.",
            "how the number of crops follows from `depth`; numbers written into your function do not follow.",
            when=lambda found, wanted, depth: len(found) != depth and f"{len(found)} crops, expected {depth}",
        ),
        Mistake(
            lambda depth: [0] * depth,
            "All crops are still 0.",
            "the example in the text, where the deepest one is 5.",
        ),
        Mistake(
            lambda depth: [103, 47, 19, 5][-depth:],
            "The right numbers in the wrong order: this is shallow to deep.",
            "the decoder, which meets the deepest skip first.",
        ),
        Mistake(
            lambda depth: [4, 16, 40, 88][:depth],
            "{found}: these are the crops of the authors' code, which counts even kernels as if they moved nothing.",
            "the 2x2 max-pool and the 2x2 convolution: their centre lies between two pixels, s / 2 further.",
        ),
        Mistake(
            lambda depth: [4, 17, 43, 95][:depth],
            "{found}: you crop as much on both sides. The middle of the map is not where the deep path looks.",
            "p and s of both maps, not their sizes.",
            when=lambda found, *_: (
                found.tolist() in ([4, 17, 43, 95], [5, 18, 44, 96], [4.5, 17.5, 43.5, 95.5])
            ),
        ),
        Mistake(
            lambda depth: [40, 76, 94, 103][:depth],
            "{found}: these are pixels of the input, but it is the encoder's map that is cropped.",
            "the distance s of two neighbouring pixels of that map, in input pixels.",
        ),
        Mistake(
            lambda depth: [5, 19, 47, 103][-depth:] + [0] * max(depth - 4, 0),
            "Depth 4 is right, {case} is not.",
            "numbers written into your function that hold for depth 4 only.",
            when=lambda found, wanted, depth: (
                depth != 4 and found.shape == wanted.shape and not close(found, wanted)
            ),
        ),
    ),
    says="At depth 4 you found {found}; the first should be 5, the last is the first output pixel's 107 minus 4.",
    look="the example in the text (33.5 and 73.5), and whether you update p with the s *before* each layer.",
    praise="All paths look at the same pixel, at every depth. A crop never depends on the input's size.",
)


class _Branch(nn.Module):
    """The paper's branch without the skip. `_branch` makes classes that differ from it in one thing."""

    kernel, ceil, skip, norm, widths = 3, True, False, nn.BatchNorm2d, (300, 250, 200, 150, 100, 50, 2)

    def __init__(self, width: int, map_shape: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = ((math.ceil(n / 8) if self.ceil else n // 8) - self.kernel + 1 for n in map_shape)
        self.conv, self.bn = nn.Conv2d(width, width // 2, self.kernel), self.norm(width // 2)
        inputs = [width // 2 * rows * columns, *self.widths[:-1]]
        if self.skip:
            inputs[5] += self.widths[0]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in zip(inputs, self.widths, strict=True))

    def pool(self, features: Tensor) -> Tensor:
        return F.avg_pool2d(features, 8, ceil_mode=self.ceil, count_include_pad=False)

    def between(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def end(self, x: Tensor) -> Tensor:
        return x

    def forward(self, features: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(self.pool(features)))).flatten(1)  # (B, width / 2 * rows * columns)
        first = x = self.between(self.layers[0](x))
        for i, layer in enumerate(self.layers[1:-1], start=1):
            x = self.between(layer(torch.cat([first, x], dim=1) if self.skip and i == 5 else x))
        return self.end(self.layers[-1](x))


def _branch(**change: Any) -> type[nn.Module]:
    return type("Branch", (_Branch,), change)


CHANGES = {
    "right": {},
    "relu at the end": {"end": lambda self, x: F.relu(x)},
    "no relu": {"between": lambda self, x: x},
    "maximum": {"pool": lambda self, x: F.max_pool2d(x, 8, ceil_mode=True)},
}


def _observed(module: Any, width: int, map_shape: tuple[int, int]) -> Any:
    """Of which layers a module is made, what it does with 4 images, and whether it works for smaller maps."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        branch = module(width, map_shape)
        if not isinstance(branch, nn.Module):
            return "no module"
        layers, linear = list(branch.modules()), []
        for layer in layers:
            if isinstance(layer, nn.Linear):  # in the order in which they run
                layer.register_forward_hook(lambda layer, *_: linear.append(layer))
        features = torch.rand(4, width, *map_shape)
        scores = branch.eval()(features)
        try:
            small = tuple(module(8, (48, 40))(torch.rand(2, 8, 48, 40)).shape)
        except Exception as error:  # the module is the student's
            small = type(error).__name__
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
        return {
            "scores": tuple(getattr(scores, "shape", ())),
            "convolutions": [(one.in_channels, one.out_channels, *one.kernel_size) for one in convolutions],
            "norms": [one.num_features for one in norms],
            "linear": [(one.in_features, one.out_features) for one in linear],
            "function": _function(convolutions, norms, list(linear), features, scores),
            "small": small,
            "parameters": sum(parameter.numel() for parameter in branch.parameters()),
        }


def _function(convolutions: list, norms: list, linear: list, features: Tensor, scores: Tensor) -> str:
    """Which branch the scores are those of: the right one, or one that differs in what CHANGES says."""
    for name, change in CHANGES.items():
        branch = _branch(**change)(features.shape[1], features.shape[2:])
        try:
            (branch.conv,), (branch.bn,), branch.layers = convolutions, norms, nn.ModuleList(linear)
            if torch.allclose(branch.eval()(features), scores, rtol=1e-3, atol=1e-5):
                return name
        except (RuntimeError, ValueError, TypeError):  # other layers, which are named before
            pass
    return "another"


def _does(name: str) -> Any:
    return lambda found, *_: found["function"] == name


def _differs(key: str) -> Any:
    return lambda found, wanted, *_: found[key] != wanted[key]


BY_HAND = "`branch_by_hand`, line by line."

exercise_2_3 = Exercise(
    right=_Branch,
    cases={"64 maps of 101x101": (64, (101, 101))},
    attempt=_observed,
    same=lambda found, wanted: {**found, "parameters": 0} == {**wanted, "parameters": 0},
    mistakes=(
        Mistake(
            lambda width, map_shape: [nn.Linear(300, 2)],
            "The answer does not make an `nn.Module`.",
            "`class ...(nn.Module)`.",
            when=lambda found, *_: isinstance(found, str),
        ),
        Mistake(
            _branch(widths=(300, 250, 200, 150, 100, 50, 1)),
            "Four images give scores of shape {found[scores]}, expected (4, 2).",
            "the last layer, and what `forward` returns.",
            when=_differs("scores"),
        ),
        Mistake(
            _branch(kernel=1),
            "Convolutions {found[convolutions]}, expected one of 3x3 from 64 to 32 maps.",
            "section 3.1: one convolutional layer, between pooling and the first fully connected layer.",
            when=_differs("convolutions"),
        ),
        Mistake(
            _branch(norm=nn.Identity),
            "The convolution has no batch normalisation.",
            "section 3.1: batch normalisation in *all* convolutional layers except the final one of the U-Net.",
            when=_differs("norms"),
        ),
        Mistake(
            _branch(widths=(300, 250, 200, 150, 100, 2)),
            "{seen} fully connected layers run, expected 7.",
            "`branch_by_hand`.",
            when=lambda found, *_: len(found["linear"]) != 7 and str(len(found["linear"])),
        ),
        Mistake(
            _branch(ceil=False),
            "The first fully connected layer has 3200 inputs: pooling left 12 windows, the partly filled last is lost.",
            "`ceil_mode` of the pooling: 101 / 8 is rounded up.",
            when=lambda found, *_: found["linear"][0][0] == 3200,
        ),
        Mistake(
            _branch(skip=True),
            "The sixth layer has 400 inputs: the skip from the first layer is still there.",
            "what the sixth layer gets in a branch without a skip.",
            when=lambda found, *_: found["linear"][5][0] == 400,
        ),
        Mistake(
            _branch(widths=(300, 250, 200, 150, 100, 60, 2)),
            "Fully connected layers {found[linear]}, expected {wanted[linear]}.",
            "the widths in the drawing.",
            when=_differs("linear"),
        ),
        Mistake(
            _branch(**CHANGES["relu at the end"]),
            "No score is negative: a ReLU stands after the last layer.",
            BY_HAND,
            when=_does("relu at the end"),
        ),
        Mistake(
            _branch(**CHANGES["no relu"]),
            "There is no ReLU between the fully connected layers.",
            BY_HAND,
            when=_does("no relu"),
        ),
        Mistake(
            _branch(**CHANGES["maximum"]),
            "The maps are pooled by their maximum, not their mean.",
            BY_HAND,
            when=_does("maximum"),
        ),
        Mistake(
            _branch(between=lambda self, x: torch.tanh(x)),
            "The layers are right, but the scores are not those of the branch without the skip.",
            BY_HAND,
            when=_does("another"),
        ),
    ),
    says="Built for 8 maps of 48x40, the module does not work for them ({found[small]}).",
    look="how the inputs of the first layer follow from `width` and from both numbers of `map_shape`.",
    praise=lambda found: f"{found['parameters']:,} parameters: 300 x 50 = 15,000 fewer than with the skip.",
)
