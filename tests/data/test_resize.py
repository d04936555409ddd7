import numpy as np
import pytest
from PIL import Image

from gemix.data.preprocessing.resize import resize_lanczos


@pytest.mark.parametrize(
    ("side", "resolution"),
    [(16, 16), (33, 64), (200, 256), (256, 64), (257, 128), (411, 128), (1000, 32), (2048, 512)],
)
@pytest.mark.parametrize("kind", ["noise", "edges", "ramp"])
def test_the_pixels_are_those_of_pillow(side, resolution, kind):
    """Edges from black to white overshoot: what lies beyond 0 and 255 is cut off in between."""
    square = {
        "noise": np.random.default_rng(side).integers(0, 256, (side, side)),
        "edges": np.indices((side, side)).sum(axis=0) // 9 % 2 * 255,
        "ramp": np.add.outer(np.arange(side), np.arange(side)) * 127 // side,
    }[kind].astype(np.uint8)
    plain = Image.fromarray(square).resize((resolution,) * 2, Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(resize_lanczos(square, resolution), np.asarray(plain))
