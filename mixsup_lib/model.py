"""The network of section 3: the U-Net extended by image-level classification branches.

Shapes: B images, C sequences, H x W input pixels, H' x W' output pixels, K classes, R branches, A annotated
images. Comments give the shapes of the paper's network (one slice of 300x300, width 64, depth 4, padding
"valid").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixsup_lib.errors import SettingError, nearest
from mixsup_lib.geometry import Geometry
from mixsup_lib.unet import ConvBlock, UNet, he_init


class DeepSkipBranch(nn.Module):
    """The paper's classification branch (section 3.1): (B, width, H', W') -> (B, 2), absent and present.

    Mean-pool 8x8 (the last window averages what exists), one 3x3 convolution to half the maps, seven
    fully-connected layers with ReLU after each but the last; the outputs of the first and the fifth are
    concatenated.

    Raises SettingError if the maps are fewer than 17 pixels a side, or the width is below 2.
    """

    POOL = 8
    WIDTHS = (300, 250, 200, 150, 100)

    def __init__(self, width: int, map_shape: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = (-(-n // self.POOL) - 2 for n in map_shape)  # 101 -> 13 -> 11
        if min(rows, columns) < 1:
            raise SettingError(
                f"The classification branch needs output maps of at least {2 * self.POOL + 1} pixels a side, "
                f"found {map_shape[0]}x{map_shape[1]}: use a larger input, or n_branches=0."
            )
        if width < 2:
            raise SettingError(
                f"The classification branch halves the number of maps and needs width >= 2, found {width}."
            )
        self.conv = ConvBlock(width, width // 2, 3, "valid")
        inputs = (width // 2 * rows * columns, *self.WIDTHS)  # 3872, 300, 250, 200, 150, 100
        pairs = zip(inputs[:-1], self.WIDTHS, strict=True)
        self.first_to_fifth = nn.ModuleList(nn.Linear(n, m) for n, m in pairs)
        self.sixth = nn.Linear(self.WIDTHS[0] + self.WIDTHS[-1], 50)
        self.seventh = nn.Linear(50, 2)
        for layer in (*self.first_to_fifth, self.sixth):
            he_init(layer, "relu")
        he_init(self.seventh, "linear")

    def forward(self, features: Tensor) -> Tensor:
        x = F.avg_pool2d(features, self.POOL, ceil_mode=True, count_include_pad=False)  # (B, 64, 13, 13)
        x = self.conv(x).flatten(1)  # (B, 32, 11, 11) -> (B, 3872)
        outputs = []
        for layer in self.first_to_fifth:
            x = F.relu(layer(x))  # (B, 300), (B, 250), (B, 200), (B, 150), (B, 100)
            outputs.append(x)
        x = torch.cat([outputs[0], x], dim=1)  # (B, 400)
        x = F.relu(self.sixth(x))  # (B, 50)
        return self.seventh(x)  # (B, 2)


BRANCHES: dict[str, type[nn.Module]] = {"deep_skip": DeepSkipBranch}
"""Kinds of classification branch: built from width and (H', W'), maps (B, width, H', W') to (B, 2)."""


class MixedSupervisionUNet(nn.Module):
    """U-Net with image-level classification branches on its second to last layer (sections 3.1 and 3.2).

    in_channels: C sequences. n_maps: K pixel classes (2 binary, 4 multiclass). n_branches: R, 0 for standard
    supervision, 1 binary, 3 multiclass (one branch per tumour subclass). width: maps of the first level,
    doubled with every one of the `depth` poolings. padding: "valid" (the paper: 300 -> 101) or "same".
    input_shape: (H, W) of training images, which fixes the first fully-connected layer. branch: the kind of
    branch, a name in BRANCHES.

    All scores are logits in float32, also under autocast. Weights are He-initialised, biases zero. The U-Net
    is built before the branches: a given torch seed gives the same U-Net with and without them, so both arms
    start alike.

    Raises SettingError for a size that does not fit the network, a number out of range, or an unknown branch.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        n_maps: int,
        n_branches: int,
        width: int,
        depth: int,
        padding: str,
        input_shape: tuple[int, int],
        branch: str = "deep_skip",
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("in_channels", in_channels, 1),
            ("n_maps", n_maps, 2),
            ("n_branches", n_branches, 0),
            ("width", width, 1),
        ):
            if value < least:
                raise SettingError(f"{name} is {value}, expected at least {least}.")
        if branch not in BRANCHES:
            raise SettingError(
                f"branch is {branch!r}, expected one of {', '.join(BRANCHES)}." + nearest(branch, BRANCHES)
            )
        self.geometry = Geometry(depth=depth, padding=padding)
        self.in_channels = in_channels
        self.input_shape = (int(input_shape[0]), int(input_shape[1]))
        map_shape = tuple(self.geometry.output_size(n) for n in self.input_shape)
        self.unet = UNet(in_channels, width, self.geometry)
        self.segmentation_layer = nn.Conv2d(width, n_maps, 1)
        he_init(self.segmentation_layer, "linear")
        self.branches = nn.ModuleList(BRANCHES[branch](width, map_shape) for _ in range(n_branches))

    def forward(self, images: Tensor, n_annotated: int | None = None) -> tuple[Tensor, Tensor | None]:
        """One training pass: (B, C, H, W) -> pixel scores (A, K, H', W'), image scores (B, R, 2).

        Only the first A = `n_annotated` images (default: all) go through the segmentation layer; all B images
        go through the branches. Image scores are None if R = 0.

        Raises SettingError if the images do not have `input_shape` (R = 0: a size that does not fit the
        network), or n_annotated is not within 0..B.
        """
        n_annotated = len(images) if n_annotated is None else n_annotated
        if not 0 <= n_annotated <= len(images):
            raise SettingError(
                f"n_annotated is {n_annotated}, expected 0 to {len(images)} (the batch has that many images)."
            )
        self._check(images, self.input_shape if self.branches else None)
        features = self.unet(images)  # (B, 64, 101, 101)
        pixel_scores = self.segmentation_layer(features[:n_annotated])  # (A, K, 101, 101)
        return pixel_scores.float(), self._image_scores(features) if self.branches else None

    def segment(self, images: Tensor) -> Tensor:
        """Pixel scores alone, (B, C, H, W) -> (B, K, H', W'), any size the geometry admits (444 -> 245)."""
        self._check(images)
        return self.segmentation_layer(self.unet(images)).float()

    def classify(self, images: Tensor) -> Tensor:
        """Image scores alone, (B, C, H, W) of `input_shape` -> (B, R, 2).

        Raises SettingError if the network has no branch.
        """
        if not self.branches:
            raise SettingError(
                "This network has no classification branch (n_branches=0): only `segment` can be used."
            )
        self._check(images, self.input_shape)
        return self._image_scores(self.unet(images))

    def _image_scores(self, features: Tensor) -> Tensor:
        return torch.stack([branch(features) for branch in self.branches], dim=1).float()  # (B, R, 2)

    def _check(self, images: Tensor, shape: tuple[int, int] | None = None) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise SettingError(
                f"Images have shape {tuple(images.shape)}, expected (B, C, H, W) with C = {self.in_channels} "
                "sequences."
            )
        if shape is not None and tuple(images.shape[2:]) != shape:
            raise SettingError(
                f"Images are {images.shape[2]}x{images.shape[3]}, expected {shape[0]}x{shape[1]}: the "
                "branch's first fully-connected layer fixes the size; use `segment` for other sizes."
            )
        for n in images.shape[2:]:
            self.geometry.output_size(n)
