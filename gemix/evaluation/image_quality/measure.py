"""All figures of one set of generated images."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from gemix.evaluation.image_quality.fid import Gaussian, frechet_distance
from gemix.evaluation.image_quality.kid import kid
from gemix.evaluation.image_quality.prdc import prdc
from gemix.evaluation.image_quality.real_stats import Reference

FEW_IMAGES = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageQuality:
    """The figures, and what they were measured with.

    Attributes:
        kid, kid_error, fid: see :mod:`gemix.evaluation.image_quality.kid` and `frechet`.
        precision, recall, density, coverage: see :mod:`gemix.evaluation.image_quality.prdc`.
        images, real_images: how many of each.
        extractor: name and checksum of what made the features.
    """

    kid: float
    kid_error: float
    fid: float
    precision: float
    recall: float
    density: float
    coverage: float
    images: int
    real_images: int
    extractor: str

    @property
    def headline(self) -> str:
        """The figure to go by: `kid` below 10,000 real images, `fid` from there on."""
        return headline(self.real_images)

    @property
    def score(self) -> float:
        """The headline's value; lower is better."""
        return getattr(self, self.headline)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        kid = f"KID {self.kid:.4g} ± {self.kid_error:.2g}"
        fid = f"FID {self.fid:.4g}"
        if self.headline == "kid":
            first = f"{kid} (to go by: fewer than {FEW_IMAGES} real images), {fid}"
        else:
            first = f"{fid} (to go by), {kid}"
        return (
            f"{first}, precision {self.precision:.2f}, recall {self.recall:.2f}, density "
            f"{self.density:.2f}, coverage {self.coverage:.2f}; {self.images} generated against "
            f"{self.real_images} real images, by {self.extractor}"
        )


def headline(real_images: int) -> str:
    """Which figure to go by.

    FID is biased by a term that depends on the number of images and the model, which decides the
    order of models on small sets; KID is not (Binkowski et al. 2018, section 4).
    """
    return "kid" if real_images < FEW_IMAGES else "fid"


def measure(reference: Reference, fakes: Tensor, extractor: str) -> ImageQuality:
    """Holds generated images against the real ones.

    Args:
        reference: of the real images.
        fakes: features of the generated ones, float32 [M, D], on the reference's device.
        extractor: what made the features of both.
    """
    kernel = kid(reference.features, fakes)
    manifold = prdc(reference.features, fakes, reference.radii)
    return ImageQuality(
        kid=kernel.value,
        kid_error=kernel.error,
        fid=frechet_distance(reference.gaussian, Gaussian.of(fakes)),
        **dataclasses.asdict(manifold),
        images=len(fakes),
        real_images=len(reference.features),
        extractor=extractor,
    )
