"""Remove images that the discriminator takes for generated."""

from __future__ import annotations

import numpy as np

from gemix.core.errors import ConfigError
from gemix.synthesis.curation.base import Candidates, ScoreRule


class Discriminator(ScoreRule):
    """The logit of the generator's own discriminator for the image and the label asked for.

    The idea of Azadi et al., "Discriminator rejection sampling", 2019, with a fixed share removed
    in place of a sampled one. The discriminator knows its training images, so it stays where the
    generator was trained.
    """

    name = "discriminator"
    meaning = "generated rather than real, to the generator's own discriminator"

    def scores(self, candidates: Candidates) -> np.ndarray:
        """Return the logits."""
        if candidates.discriminator is None:
            raise ConfigError(
                "curation.rules: discriminator needs a checkpoint of the training of this set's "
                "generator in <workdir>/gan, where it is not; leave the rule out, or run gemix "
                "curate where the generator was trained"
            )
        return candidates.discriminator(candidates.images, candidates.asked)
