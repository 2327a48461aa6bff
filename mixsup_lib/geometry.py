"""Sizes and alignment of the U-Net, in whole numbers and without torch.

Which input sizes the network takes, how large its output is, where the skip connections are cropped, which
input pixel the first output pixel sits on, and how a slice is padded so that the output covers the right
pixels of it. Everything speaks of one axis; height and width are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from mixsup_lib.errors import SettingError, nearest

PADDINGS = ("valid", "same")


@dataclass(frozen=True)
class Frame:
    """How a slice is laid out in the network along one axis (lengths in pixels).

    `pad_before` and `pad_after` zeros around the slice make the network's input; the network's output covers
    the slice pixels `first` .. `last - 1`. Where the output is larger than the slice `first` is negative and
    `last` exceeds the slice size: output index `-first` is then slice pixel 0, and what lies outside the
    slice is background.
    """

    pad_before: int
    pad_after: int
    first: int
    last: int


@dataclass(frozen=True)
class Geometry:
    """Sizes of a U-Net with `depth` poolings and unpadded ("valid", as in the paper) or "same" convolutions.

    Every level has two 3x3 convolutions; the way down is a 2x2 max-pool whose output size is rounded up, the
    way up is an upsampling to twice the size and an up-convolution (section 3.1; U-Net as the paper uses it).
    The paper's network is `Geometry(depth=4, padding="valid")`: 300 -> 101.

    Departure: small networks use padded convolutions and an odd (3x3) up-convolution, which keeps every path
    aligned.
    Departure: skips are cropped where they align with the deep path; the authors' own crops are up to 15
    pixels off.

    Raises SettingError for a depth below 1 or an unknown padding.
    """

    depth: int
    padding: str

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise SettingError(
                f"padding is {self.padding!r}, expected one of {', '.join(PADDINGS)}."
                + nearest(self.padding, PADDINGS)
            )
        if self.depth < 1:
            raise SettingError(f"depth is {self.depth}, expected at least 1 pooling.")

    def layer_sizes(self, n: int) -> list[tuple[str, int]]:
        """Name and output size of every layer that an input of size `n` passes, from input to output.

        Also answers for sizes that `output_size` refuses: there the last pooling window is only partly filled
        (the authors tested at 350 -> 165 in this way). Sizes may come out negative for an input too small for
        the network.
        """
        valid = self.padding == "valid"
        convolutions = 4 if valid else 0  # pixels that two 3x3 convolutions take off
        sizes = [("input", n)]
        for level in range(self.depth):
            n -= convolutions
            sizes.append((f"encoder {level}", n))
            n = -(-n // 2)
            sizes.append((f"pool {level}", n))
        n -= convolutions
        sizes.append(("bottom", n))
        for level in reversed(range(self.depth)):
            n *= 2
            sizes.append((f"upsample {level}", n))
            n -= 1 if valid else 0
            sizes.append((f"up-convolution {level}", n))
            n -= convolutions
            sizes.append((f"decoder {level}", n))
        return sizes

    def smallest_input(self, output: int) -> int:
        """The smallest input size whose output has at least `output` pixels (valid, depth 4: 240 -> 444)."""
        step = 2**self.depth
        if self.padding == "same":
            return step * max(1, -(-output // step))
        bottom = (
            4 - -(max(1, output) + 5 * (step - 1)) // step
        )  # output = step * (bottom - 4) - 5 * (step - 1)
        return step * bottom + 4 * (step - 1)

    def output_size(self, n: int) -> int:
        """Size of the output for an input of size `n`.

        Valid, depth 4: 16b + 60 -> 16b - 139, always 199 less (300 -> 101, 444 -> 245); same: n, a multiple
        of 2^depth.

        Raises SettingError for a size at which some pooling would meet an odd number of pixels or nothing
        would be left, and names the admissible sizes around it.
        """
        step, smallest = 2**self.depth, self.smallest_input(1)
        if n < smallest or (n - smallest) % step:
            below = smallest + (n - smallest) // step * step
            choices = f"{smallest} or more" if n < smallest else f"{below} or {below + step}"
            raise SettingError(
                f"Input size {n} does not fit the network (depth {self.depth}, padding {self.padding!r}): "
                f"sizes are {smallest} plus a multiple of {step}, use {choices}."
            )
        return self.layer_sizes(n)[-1][1]

    def _alignment(self) -> tuple[tuple[int, ...], int]:
        """Skip crops (deep to shallow) and the input pixel of output pixel 0.

        Follows `position`, the input pixel on which the receptive field of a map's pixel 0 is centred, and
        `stride`, the distance of two neighbouring pixels of that map, through all layers.
        """
        stride, position, encoder, crops = 1, 0.0, [], []
        for _ in range(self.depth):
            position += 2 * stride  # two unpadded 3x3 convolutions
            encoder.append(position)
            position += stride / 2  # max-pool: the middle of two pixels
            stride *= 2
        position += 2 * stride
        for skip in reversed(encoder):
            stride //= 2  # upsampling: pixel 0 stays where it is
            position += stride / 2  # unpadded 2x2 up-convolution
            crops.append(int((position - skip) / stride))
            position += 2 * stride
        return tuple(crops), int(position)

    def skip_crops(self) -> tuple[int, ...]:
        """Pixels cut off before each concatenated encoder map, deep to shallow (paper: 5, 19, 47, 103)."""
        return (0,) * self.depth if self.padding == "same" else self._alignment()[0]

    def window_start(self) -> int:
        """The input pixel on which output pixel 0 is centred: 107 (valid, depth 4), 0 (same)."""
        return 0 if self.padding == "same" else self._alignment()[1]

    def training_frame(self, slice_size: int, input_size: int) -> Frame:
        """Centre the network's output on the slice: 240 in 300 is padded by 38 and 22, output on 69..169.

        Departure: the authors pad by 30 on each side; with aligned skips the output is centred by 38 before
        and 22 after.

        Raises SettingError if the network does not take `input_size` or the slice does not fit into it.
        """
        output, start = self.output_size(input_size), self.window_start()
        first = (slice_size - output) // 2
        frame = Frame(start - first, input_size - slice_size - start + first, first, first + output)
        if min(frame.pad_before, frame.pad_after) < 0:
            raise SettingError(
                f"A slice of {slice_size} pixels does not fit into an input of {input_size} "
                f"(depth {self.depth}, padding {self.padding!r}): use an input of at least "
                f"{self._smallest_training_input(slice_size)}."
            )
        return frame

    def _smallest_training_input(self, slice_size: int) -> int:
        step, size = 2**self.depth, self.smallest_input(1)
        while True:
            first = (slice_size - self.output_size(size)) // 2
            if 0 <= self.window_start() - first <= size - slice_size:
                return size
            size += step

    def whole_slice_frame(self, slice_size: int) -> Frame:
        """The smallest input whose output covers the whole slice (paper: 444 for 240; same: next multiple).

        Departure: the authors test at 350, which covers 165x165 pixels only; here every pixel of the slice is
        predicted.
        """
        return self.training_frame(slice_size, self.smallest_input(slice_size))
