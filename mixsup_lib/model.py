"""The network of section 3: the U-Net extended by image-level classification branches.

Shapes: B images, C sequences, H x W input pixels, H' x W' output pixels, K classes, R branches, A annotated
images. Comments give the shapes of the paper's network (one slice of 300x300, width 64, depth 4, padding
"valid").
"""

from __future__ import annotations

from torch import Tensor, nn

from mixsup_lib.branches import image_head
from mixsup_lib.errors import SettingError
from mixsup_lib.geometry import Geometry
from mixsup_lib.unet import UNet, he_init


class MixedSupervisionUNet(nn.Module):
    """U-Net with image-level classification branches on its second to last layer (sections 3.1 and 3.2).

    in_channels: C sequences. n_maps: K pixel classes (2 binary, 4 multiclass). n_branches: R, 0 for standard
    supervision, 1 binary, 3 multiclass (one branch per tumour subclass). width: maps of the first level,
    doubled with every one of the `depth` poolings. padding: "valid" (the paper: 300 -> 101) or "same".
    input_shape: (H, W) of training images, which fixes the first fully-connected layer. branch: the kind of
    branch, a name in `branches.BRANCHES`. pooling: at its entry, None for the paper's mean, "max" or "lse".

    All scores are logits in float32, also under autocast. Weights are He-initialised, biases zero. The U-Net
    is built before the branches: a given torch seed gives the same U-Net with and without them, so both arms
    start alike.

    Raises SettingError for a size that does not fit the network, a number out of range, an unknown branch or
    pooling, or a trunk shared by less than two branches.
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
        pooling: str | None = None,
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
        self.geometry = Geometry(depth=depth, padding=padding)
        self.in_channels = in_channels
        self.input_shape = (int(input_shape[0]), int(input_shape[1]))
        map_shape = tuple(self.geometry.output_size(n) for n in self.input_shape)
        self.unet = UNet(in_channels, width, self.geometry)
        self.segmentation_layer = nn.Conv2d(width, n_maps, 1)
        he_init(self.segmentation_layer, "linear")
        self.branches = image_head(branch, n_branches, width, map_shape, pooling)

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
        return pixel_scores.float(), self.branches(features).float() if self.branches else None

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
        return self.branches(self.unet(images)).float()

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
