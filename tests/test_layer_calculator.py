"""The layer calculator: its numbers are those of the network, impossible sizes get the network's sentence."""

from __future__ import annotations

import pytest
import torch

from mixsup_lib.experiments.style import alt_text
from mixsup_lib.files import SettingError
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.teaching.widgets.layer_calculator import draw, layer_calculator, layer_table
from mixsup_lib.unet import Geometry

CASES = [
    (300, "valid", 4, 8),
    (148, "valid", 3, 4),
    (80, "same", 3, 16),
    (48, "same", 2, 4),
    (24, "same", 1, 2),
]


@pytest.mark.parametrize(("size", "padding", "depth", "width"), CASES)
def test_the_table_is_the_network(size, padding, depth, width):
    network = MixedSupervisionUNet(
        in_channels=4,
        n_maps=2,
        n_branches=1,
        width=width,
        depth=depth,
        padding=padding,
        input_shape=(size, size),
    )
    table = layer_table(size, padding, depth, width).set_index("layer")
    assert table["parameters"].sum() == sum(p.numel() for p in network.parameters())
    assert table["parameters"][table["part"] == "branch"].sum() == sum(
        p.numel() for p in network.branches.parameters()
    )
    sizes = dict(Geometry(depth, padding).layer_sizes(size))
    assert table["side"][list(sizes)].to_dict() == sizes
    with torch.no_grad():
        features = network.unet(torch.zeros(1, 4, size, size))
    assert features.shape[1:] == (
        table["maps"]["decoder 0"],
        table["side"]["decoder 0"],
        table["side"]["decoder 0"],
    )
    first = network.branches[0].first_to_fifth[0]
    assert first.in_features == table["maps"]["convolution"] * table["side"]["convolution"] ** 2


def test_the_papers_numbers():
    table = layer_table(300, "valid", 4, 64)
    assert table.groupby("part")["parameters"].sum().to_dict() == {"U-Net": 31_046_082, "branch": 1_371_280}
    maps = table.set_index("layer")["maps"]
    assert [maps[name] for name in ("pool 3", "bottom", "upsample 3", "up-convolution 3")] == [
        512,
        1024,
        1024,
        512,
    ]
    assert maps["upsample 0"] == 128 and maps["segmentation"] == 2
    assert maps[[f"FC {n}" for n in range(1, 8)]].tolist() == [300, 250, 200, 150, 100, 50, 2]
    assert table.set_index("layer")["side"][["mean-pool", "convolution", "FC 1"]].tolist() == [13, 11, 1]


def test_the_picture_labels_every_side_and_every_count():
    figure = draw(300, "valid", 4, 64)
    sides, parameters = ([text.get_text() for text in axis.texts] for axis in figure.axes)
    sizes = [str(n) for _, n in Geometry(4, "valid").layer_sizes(300)]
    assert sides == [*sizes, "101", "13", "11"]
    assert {"14M", "7.1M", "1.2M", "886k", "130"} <= set(parameters)
    assert "output 101x101" in alt_text(figure) and "31,046,082" in alt_text(figure)
    assert {"input (4)", "FC 7 (2)"} <= set(parameters)
    assert "(pixels)" in figure.axes[0].get_ylabel()


@pytest.mark.parametrize(("size", "padding", "depth", "width"), [*CASES, (604, "valid", 5, 64)])
def test_all_labels_lie_within_the_picture(size, padding, depth, width):
    figure = draw(size, padding, depth, width)
    figure.canvas.draw()
    for text in (*figure.axes[0].texts, *figure.axes[1].texts):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width, text.get_text()
        assert box.y0 >= 0 and box.y1 <= figure.bbox.height, text.get_text()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ((301, "valid", 4, 64), "Input size 301 .* use 300 or 316"),
        ((300, "same", 4, 64), "use 288 or 304"),
        ((204, "valid", 4, 64), "at least 17 pixels a side, found 5x5"),
        ((300, "valid", 4, 1), "needs width >= 2"),
    ],
)
def test_an_impossible_size_gets_the_librarys_sentence(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        draw(*settings)


@pytest.fixture
def explorer():
    return layer_calculator()


def test_the_explorer_starts_with_the_papers_network(explorer):
    assert "output 101x101" in explorer.children[1].value
    assert all(control.description for control in explorer.children[0].children)


def test_every_control_moves_the_picture_and_a_wrong_size_is_explained(explorer):
    controls, picture = {c.description: c for c in explorer.children[0].children}, explorer.children[1]
    controls["input size (pixels)"].value = 240
    assert 'role="alert"' in picture.value and "use 236 or 252" in picture.value
    controls["padding"].value = "same"
    assert "Input 240x240 pixels, padding &#x27;same&#x27;" in picture.value
    controls["depth (poolings)"].value = 3
    assert "depth 3" in picture.value
    controls["width (maps)"].value = 16
    assert "U-Net 537,586" in picture.value and "alert" not in picture.value
