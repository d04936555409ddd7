"""A page to explore a generator: soft labels from a few latents, asked and seen, as one HTML file.

It works without a server and, as a static grid, without JavaScript.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from gemix.gan.config import SamplingConfig
from gemix.report.charts import SERIES
from gemix.report.examples import LARGEST, small_png
from gemix.report.templates import data_uri, environment

LOSSLESS = 64  # pixels; frames of more are JPEG, which then is half as large as PNG
_JPEG_QUALITY = 90
_TALLEST = 100  # of a chart, in the units of its drawing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """One image.

    Attributes:
        uri: the encoded image.
        asked: weight of each class.
        seen: probability of each class by the teacher; None without one.
        key: of the label, the same for all latents.
    """

    uri: str
    asked: tuple[float, ...]
    seen: tuple[float, ...] | None
    key: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Path:
    """Frames in equal steps from the label of one class to that of another."""

    start: int
    end: int
    frames: tuple[Frame, ...]

    def line(self, index: int, seen: bool) -> str:
        """Return the points of a class's weights along the path, asked or seen, for an SVG."""
        weights = [(frame.seen if seen else frame.asked)[index] for frame in self.frames]
        return " ".join(f"{x + 0.5:g},{_TALLEST * (1 - y):.1f}" for x, y in enumerate(weights))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent:
    """Images from one latent.

    Attributes:
        seed: of latent and noise.
        triangle: rows of the class simplex from the first class down, row r of r + 1 frames; empty
            unless there are three classes.
        paths: one for each pair of classes.
    """

    seed: int
    triangle: tuple[tuple[Frame, ...], ...]
    paths: tuple[Path, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExploreContent:
    """Everything that the page shows.

    Attributes:
        name: of the directory of the generator.
        created: UTC.
        checksum, kimg: of the generator.
        teacher: name of the teacher whose probabilities are shown; None without one.
        sampling: settings of all images.
        latents: one or more.
    """

    name: str
    created: datetime.datetime
    classes: tuple[str, ...]
    checksum: str
    kimg: float
    teacher: str | None
    sampling: SamplingConfig
    latents: tuple[Latent, ...]


def simplex_rows(side: int) -> np.ndarray:
    """Return evenly spaced soft labels of three classes, row by row from the first class down.

    Args:
        side: labels on a side of the triangle, at least 2.

    Returns:
        float32 [side (side + 1) / 2, 3].
    """
    rows = [
        (side - 1 - row, row - column, column) for row in range(side) for column in range(row + 1)
    ]
    return np.array(rows, np.float32) / (side - 1)


def latent_of(
    seed: int,
    images: np.ndarray,
    asked: np.ndarray,
    seen: np.ndarray | None,
    *,
    side: int,
    pairs: Sequence[tuple[int, int]],
) -> Latent:
    """Arrange the images of one latent.

    Args:
        images: uint8 [N, C, H, W]: those of :func:`simplex_rows`, then those of each pair.
        asked: their labels, [N, K].
        seen: probabilities by the teacher, [N, K].
        side: of the triangle; 0 for none.
        pairs: of classes; the images that are left are shared equally among them.
    """
    inside = side * (side + 1) // 2
    steps = (len(images) - inside) // len(pairs)

    def frames(start: int, count: int) -> tuple[Frame, ...]:
        return tuple(
            Frame(
                uri=frame_uri(images[row]),
                asked=tuple(asked[row].tolist()),
                seen=None if seen is None else tuple(seen[row].tolist()),
                key=str(row),
            )
            for row in range(start, start + count)
        )

    return Latent(
        seed=seed,
        triangle=tuple(frames(row * (row + 1) // 2, row + 1) for row in range(side)),
        paths=tuple(
            Path(start=start, end=end, frames=frames(inside + number * steps, steps))
            for number, (start, end) in enumerate(pairs)
        ),
    )


def frame_uri(pixels: np.ndarray) -> str:
    """Encode uint8 [C, H, W] with C of 1 or 3: as PNG up to `LOSSLESS` pixels, above as JPEG."""
    if max(pixels.shape[1:]) <= LOSSLESS:
        return data_uri(small_png(pixels), "image/png")
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return data_uri(stream.getvalue(), "image/jpeg")


def render_explore(content: ExploreContent) -> str:
    """Render the page: an HTML document that needs no other file."""
    templates = environment()
    templates.filters["weights"] = lambda values: ",".join(f"{value:.3g}" for value in values)
    templates.filters["words"] = lambda values: _words(values, content.classes)
    templates.filters["css"] = lambda index: f"var(--series-{(index + 1) % SERIES})"
    return templates.get_template("explore.html").render(content=content, tallest=_TALLEST)


def _words(values: Sequence[float], classes: Sequence[str]) -> str:
    """Return the weights of 1% and more, the largest first."""
    order = sorted(range(len(values)), key=lambda index: -values[index])
    return ", ".join(
        f"{classes[index]} {values[index]:.0%}" for index in order if values[index] >= 0.005
    )
