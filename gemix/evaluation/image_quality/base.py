"""The interface of an image metric: a comparison of features of generated and of real images."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import ClassVar

from torch import Tensor

from gemix.core.errors import GemixError


class ImageMetricError(GemixError):
    """An image metric that cannot be computed. Callers report it and go on training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricOutput:
    """One value that a metric returns, and how it is shown.

    Attributes:
        name: key in logs and in ``metrics.json``.
        label: name for readers.
        higher_is_better: its good direction.
        error: name of the value that is its standard error, if it has one.
        chart: title of the chart that its curve is drawn in.
        format: format specification.
    """

    name: str
    label: str
    higher_is_better: bool
    chart: str
    error: str | None = None
    format: str = ".4g"


class ImageMetric(abc.ABC):
    """An image metric; :mod:`gemix.evaluation.image_quality.testing` holds its contract.

    Attributes:
        outputs: what it returns.
        statistics: names of the arrays of :meth:`real_statistics`, unique among all metrics.
    """

    outputs: ClassVar[tuple[MetricOutput, ...]]
    statistics: ClassVar[tuple[str, ...]] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Keys of all values that :meth:`compute` returns."""
        pairs = ((output.name, output.error) for output in self.outputs)
        return tuple(name for pair in pairs for name in pair if name)

    def real_statistics(self, features: Tensor) -> dict[str, Tensor]:
        """Return what depends on the real images alone; it is computed once and cached.

        Args:
            features: of the real images, float32 [N, D].
        """
        return {}

    @abc.abstractmethod
    def compute(self, real: Mapping[str, Tensor], fakes: Tensor) -> dict[str, float]:
        """Return the values of one set of generated images.

        Args:
            real: `features` of the real images, float32 [N, D], and the arrays of
                :meth:`real_statistics`.
            fakes: features of the generated images, float32 [M, D], on the same device.

        Raises:
            ImageMetricError: if the metric cannot be computed of these sets.
        """


@contextlib.contextmanager
def wrap_metric_errors(metric: ImageMetric) -> Iterator[None]:
    """Raise whatever a metric raises as ImageMetricError: linear algebra fails in many ways."""
    try:
        yield
    except ImageMetricError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ImageMetricError(f"image metric {'/'.join(metric.names)}: {reason}") from error
