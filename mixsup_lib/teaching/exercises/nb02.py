"""Checks of notebook 02: sizes, crops that align, and the branch without its skip."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixsup_lib.teaching.exercises.verdict import as_array, call, check, expect
from mixsup_lib.unet import Geometry


@check
def exercise_2_1(smallest_input: Any) -> str:
    """(output, depth) -> smallest fitting input whose output has at least `output` pixels."""
    for output, depth in ((240, 4), (101, 4), (102, 4), (1, 4), (100, 2), (64, 1), (33, 3), (300, 5)):
        found = float(as_array(call(smallest_input, output, depth), ()))
        asked = f"For an output of {output} at depth {depth} you take an input of {found:g}"
        expect(found != output, f"{asked}: unpadded convolutions cost pixels.", "the table of sizes.")
        geometry = Geometry(depth, "valid")
        right = geometry.smallest_input(output)
        expect(
            found == int(found),
            f"{asked}: not a whole number of pixels.",
            "how you divide: `//` or `math.ceil`.",
        )
        loss = 5 * (2**depth - 1) + 4 * 2**depth + 4 * (2**depth - 1)
        expect(
            found != output + loss or found == right,
            f"{asked}: {loss} more is the right loss, but at this input a max-pool meets an odd number of pixels.",
            "which inputs fit; count in steps of the bottom's size b rather than backwards from the output.",
        )
        expect(
            depth == 4 or found != Geometry(4, "valid").smallest_input(output) or found == right,
            f"{asked}: that is the answer for depth 4.",
            "where your function uses its second argument.",
        )
        sizes = geometry.layer_sizes(int(found))
        odd = [f"{n} in {name}" for name, n in sizes if name.startswith("encoder") and n % 2]
        expect(
            not odd,
            f"{asked}: a max-pool meets an odd number of pixels ({', '.join(odd[:1])}).",
            "the sizes on the way down: each one before a max-pool must be even.",
        )
        expect(
            sizes[-1][1] >= output,
            f"{asked}: the output then has {sizes[-1][1]} pixels, too few.",
            "the way up: every level doubles, then loses 1 and 4 pixels.",
        )
        expect(
            found == right,
            f"{asked}: it fits, but a smaller input does as well.",
            "the smallest b for which the output is large enough; by how much does the input change with b?",
        )
    return "240 pixels in one pass need an input of 444, which gives 245: the library's whole-slice pass."


@check
def exercise_2_2(skip_crops: Any) -> str:
    """depth -> crops of the skips, deep to shallow."""
    found = _crops(skip_crops, 4)
    expect(any(found), "All crops are still 0.", "the example in the text, where the deepest one is 5.")
    expect(
        found != [103, 47, 19, 5],
        "The right numbers in the wrong order: this is shallow to deep.",
        "the decoder, which meets the deepest skip first.",
    )
    expect(
        found != [4, 16, 40, 88],
        f"{found}: these are the crops of the authors' code, which counts even kernels as if they moved nothing.",
        "the 2x2 max-pool and the 2x2 convolution: their centre lies between two pixels, s / 2 further.",
    )
    expect(
        found not in ([4, 17, 43, 95], [5, 18, 44, 96], [4.5, 17.5, 43.5, 95.5]),
        f"{found}: you crop as much on both sides. The middle of the map is not where the deep path looks.",
        "p and s of both maps, not their sizes.",
    )
    expect(
        found != [40, 76, 94, 103],
        f"{found}: these are pixels of the input, but it is the encoder's map that is cropped.",
        "the distance s of two neighbouring pixels of that map, in input pixels.",
    )
    expect(
        found == [5, 19, 47, 103],
        f"At depth 4 you found {found}; the first should be 5, the last is the first output pixel's 107 minus 4.",
        "the example in the text (33.5 and 73.5), and whether you update p with the s *before* each layer.",
    )
    for depth in (1, 2, 3, 5):
        expect(
            _crops(skip_crops, depth) == list(Geometry(depth, "valid").skip_crops()),
            f"Depth 4 is right, depth {depth} is not.",
            "numbers written into your function that hold for depth 4 only.",
        )
    return "All paths look at the same pixel, at every depth. A crop never depends on the input's size."


def _crops(skip_crops: Any, depth: int) -> list[float]:
    found = call(skip_crops, depth)
    if isinstance(found, list | tuple):
        expect(
            len(found) == depth,
            f"Called with depth {depth} you return {len(found)} crops, expected {depth}.",
            "how the number of crops follows from `depth`; numbers written into your function do not follow.",
        )
    return as_array(found, (depth,)).tolist()


@check
def exercise_2_3(module: Any) -> str:
    """width, map shape -> module (B, width, H', W') -> (B, 2): the paper's branch without the skip."""
    torch.manual_seed(0)
    branch = call(module, 64, (101, 101))
    expect(
        isinstance(branch, nn.Module), "The answer does not make an `nn.Module`.", "`class ...(nn.Module)`."
    )
    branch.eval()
    features = torch.rand(4, 64, 101, 101)
    with torch.no_grad():
        linear, scores = _linear_layers(branch, features)
    expect(
        getattr(scores, "shape", None) == (4, 2),
        f"Four images give scores of shape {tuple(getattr(scores, 'shape', ()))}, expected (4, 2).",
        "the last layer, and what `forward` returns.",
    )
    _judge_layers(branch, linear)
    _judge_function(branch, linear, features, scores)
    other = call(module, 8, (48, 40))
    try:
        shape = tuple(other(torch.rand(2, 8, 48, 40)).shape)
    except Exception as error:  # the module is the student's
        shape = type(error).__name__
    expect(
        shape == (2, 2),
        f"Built for 8 maps of 48x40, the module does not work for them ({shape}).",
        "how the inputs of the first layer follow from `width` and from both numbers of `map_shape`.",
    )
    count = sum(parameter.numel() for parameter in branch.parameters())
    return f"{count:,} parameters: 300 x 50 = 15,000 fewer than with the skip."


def _linear_layers(branch: nn.Module, features: Tensor) -> tuple[list[nn.Linear], Any]:
    """Fully connected layers in the order in which they run, and the scores."""
    order: list[nn.Linear] = []
    layers = [layer for layer in branch.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(lambda layer, *_: order.append(layer)) for layer in layers]
    scores = call(branch, features)
    for hook in hooks:
        hook.remove()
    return order, scores


def _judge_layers(branch: nn.Module, linear: list[nn.Linear]) -> None:
    convolutions = [layer for layer in branch.modules() if isinstance(layer, nn.Conv2d)]
    kinds = [(layer.in_channels, layer.out_channels, *layer.kernel_size) for layer in convolutions]
    expect(
        kinds == [(64, 32, 3, 3)],
        f"Convolutions {kinds}, expected one of 3x3 from 64 to 32 maps.",
        "section 3.1: one convolutional layer, between pooling and the first fully connected layer.",
    )
    norms = [layer.num_features for layer in branch.modules() if isinstance(layer, nn.BatchNorm2d)]
    expect(
        norms == [32],
        "The convolution has no batch normalisation.",
        "section 3.1: batch normalisation in *all* convolutional layers except the final one of the U-Net.",
    )
    widths = [(layer.in_features, layer.out_features) for layer in linear]
    expect(len(linear) == 7, f"{len(linear)} fully connected layers run, expected 7.", "`branch_by_hand`.")
    expect(
        widths[0][0] != 3200,
        "The first fully connected layer has 3200 inputs: pooling left 12 windows, and the partly filled last is lost.",
        "`ceil_mode` of the pooling: 101 / 8 is rounded up.",
    )
    expect(
        widths[5][0] != 400,
        "The sixth layer has 400 inputs: the skip from the first layer is still there.",
        "what the sixth layer gets in a branch without a skip.",
    )
    expected = [(3872, 300), (300, 250), (250, 200), (200, 150), (150, 100), (100, 50), (50, 2)]
    expect(
        widths == expected,
        f"Fully connected layers {widths}, expected {expected}.",
        "the widths in the drawing.",
    )


def _judge_function(branch: nn.Module, linear: list[nn.Linear], features: Tensor, scores: Tensor) -> None:
    conv = next(layer for layer in branch.modules() if isinstance(layer, nn.Conv2d))
    norm = next(layer for layer in branch.modules() if isinstance(layer, nn.BatchNorm2d))

    def run(pool: str, relu: bool, end: bool) -> Tensor:
        pooled = (
            F.avg_pool2d(features, 8, ceil_mode=True, count_include_pad=False)
            if pool == "mean"
            else F.max_pool2d(features, 8, ceil_mode=True)
        )
        x = F.relu(norm(conv(pooled))).flatten(1)
        for layer in linear[:-1]:
            x = F.relu(layer(x)) if relu else layer(x)
        return F.relu(linear[-1](x)) if end else linear[-1](x)

    def same(*variant: Any) -> bool:
        with torch.no_grad():
            return bool(torch.allclose(run(*variant), scores, rtol=1e-3, atol=1e-5))

    where = "`branch_by_hand`, line by line."
    right = same("mean", True, False)
    expect(
        right or float(scores.min()) < 0, "No score is negative: a ReLU stands after the last layer.", where
    )
    expect(
        right or not same("mean", False, False), "There is no ReLU between the fully connected layers.", where
    )
    expect(
        right or not same("max", True, False), "The maps are pooled by their maximum, not their mean.", where
    )
    expect(right, "The layers are right, but the scores are not those of the branch without the skip.", where)
