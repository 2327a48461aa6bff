"""Exercises of notebook 02: sizes, crops that align, and the branch without its skip."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, cases, close
from mixsup_lib.unet import Geometry

TAKEN = "{case} you take an input of {found:g}"


def _smallest_input(output: int, depth: int) -> int:
    return Geometry(depth, "valid").smallest_input(output)


def _odd(found: float, wanted: float, output: int, depth: int) -> str:
    """The first max-pool that meets an odd number of pixels, in words."""
    sizes = Geometry(depth, "valid").layer_sizes(math.ceil(found))
    return next(f"{n} in {name}" for name, n in sizes if name.startswith("encoder") and n % 2)


exercise_2_1 = Exercise(
    right=_smallest_input,
    cases=cases("For an output of {} at depth {}", (240, 4), (101, 4), (102, 4), (1, 4), (100, 2), (64, 1), (300, 5)),
    mistakes=(
        Mistake(lambda output, _: output, TAKEN + ": unpadded convolutions cost pixels.", "the table of sizes."),
        Mistake(
            lambda output, depth: output + 199,
            TAKEN + ": a max-pool meets an odd number of pixels ({seen}).",
            "the sizes on the way down: each one before a max-pool must be even.",
            when=_odd,
        ),
        Mistake(
            lambda output, depth: _smallest_input(output, depth) - 2**depth,
            TAKEN + ": the output then has too few pixels.",
            "the way up: every level doubles, then loses 1 and 4 pixels.",
            when=lambda found, wanted, output, depth: found < wanted,
        ),
    ),
    says=TAKEN + ": it fits, but a smaller input does as well.",
    look="the smallest b for which the output is large enough; by how much does the input change with b?",
    praise="240 pixels in one pass need an input of 444, which gives 245: the library's whole-slice pass.",
)


exercise_2_2 = Exercise(
    right=lambda depth: list(Geometry(depth, "valid").skip_crops()),
    cases=cases("Depth {}", (4,), (1,), (2,), (3,), (5,)),
    mistakes=(
        Mistake(
            lambda depth: [0] * depth, "All crops are still 0.", "the example in the text, where the deepest one is 5."
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
        ),
    ),
    says="{case}: you return {found}, expected other crops.",
    look="the example in the text (33.5 and 73.5), and whether you update p with the s *before* each layer.",
    praise="All paths look at the same pixel, at every depth. A crop never depends on the input's size.",
)


class _Branch(nn.Module):
    """The paper's branch without the skip. `_branch` makes classes that differ from it in one thing."""

    pool, ceil, norm, between, skip, end = (F.avg_pool2d, True, nn.BatchNorm2d, torch.relu, False, nn.Identity())

    def __init__(self, width: int, map_shape: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = ((math.ceil(n / 8) if self.ceil else n // 8) - 2 for n in map_shape)
        self.conv, self.bn = nn.Conv2d(width, width // 2, 3), self.norm(width // 2)
        inputs = (width // 2 * rows * columns, 300, 250, 200, 150, 400 if self.skip else 100, 50)
        outputs = (300, 250, 200, 150, 100, 50, 2)
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in zip(inputs, outputs, strict=True))

    def forward(self, features: Tensor) -> Tensor:
        x = self.pool(features, 8, ceil_mode=self.ceil)  # (B, width, rows + 2, columns + 2)
        x = F.relu(self.bn(self.conv(x))).flatten(1)  # (B, width / 2 * rows * columns)
        first = x = self.between(self.layers[0](x))
        for i, layer in enumerate(self.layers[1:-1], start=1):
            x = self.between(layer(torch.cat([first, x], dim=1) if self.skip and i == 5 else x))
        return self.end(self.layers[-1](x))


def _branch(**change: Any) -> type[nn.Module]:
    return type("Branch", (_Branch,), change)


def _observed(module: Any, width: int, map_shape: tuple[int, int]) -> dict[str, Any]:
    """The layers of a module as they run, and its scores of 4 images after these layers were drawn anew."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        features, ran = torch.rand(4, width, *map_shape), []
        branch = module(width, map_shape).eval()
        for layer in branch.modules():
            if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
                layer.register_forward_hook(lambda layer, *_: ran.append(layer))
        branch(features)
        layers = list(ran)
        torch.manual_seed(0)
        for layer in layers:
            layer.reset_parameters()
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        return {
            "convolutions": [(one.in_channels, one.out_channels, *one.kernel_size) for one in convolutions],
            "norms": [one.num_features for one in layers if isinstance(one, nn.BatchNorm2d)],
            "linear": [(one.in_features, one.out_features) for one in layers if isinstance(one, nn.Linear)],
            "scores": branch(features).numpy(),
        }


exercise_2_3 = Exercise(
    right=_Branch,
    cases={"64 maps of 101x101": (64, (101, 101)), "8 maps of 48x40": (8, (48, 40))},
    attempt=_observed,
    same=lambda found, wanted: all(
        close(found[key], wanted[key], 1e-3) if key == "scores" else found[key] == wanted[key] for key in wanted
    ),
    mistakes=(
        Mistake(
            lambda *_: nn.Identity(),
            "Convolutions {found[convolutions]}, expected one of 3x3 from {wanted[convolutions][0][0]} to "
            "{wanted[convolutions][0][1]} maps.",
            "section 3.1: one convolutional layer, between pooling and the first fully connected layer.",
            when=lambda found, wanted, *_: found["convolutions"] != wanted["convolutions"],
        ),
        Mistake(
            _branch(norm=nn.Identity),
            "The convolution has no batch normalisation.",
            "section 3.1: batch normalisation in *all* convolutional layers except the final one of the U-Net.",
            when=lambda found, wanted, *_: found["norms"] != wanted["norms"],
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
        Mistake(_branch(end=torch.relu), "No score is negative: a ReLU stands after the last layer."),
        Mistake(_branch(between=nn.Identity()), "There is no ReLU between the fully connected layers."),
        Mistake(_branch(pool=torch.max_pool2d), "The maps are pooled by their maximum, not their mean."),
    ),
    says="{case}: the scores, from connected layers {found[linear]}, are not those of the branch without skip.",
    look="`branch_by_hand`, line by line.",
    praise="300 x 50 = 15,000 parameters fewer than with the skip.",
)
