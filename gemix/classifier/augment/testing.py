"""The contract of a classifier augmentation, as a test class to subclass (pytest collects it)::

class TestMyAugmentation(AugmentationContract):
    augmentation = staticmethod(my_augmentation)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import timm
import torch
from torch import Tensor, nn

from gemix.classifier.augment.base import Augmentation, AugmentContext, FeatureAugmentation


class AugmentationContract:
    """Contract of an augmentation; subclass it and set `augmentation`.

    Attributes:
        augmentation: the augmentation under test.
        mixes_images: whether an image depends on others of its worker's batch, as in mixup.
    """

    augmentation: Augmentation
    mixes_images: bool = False

    def batch(self, count: int = 8, channels: int = 1) -> tuple[Tensor, Tensor]:
        """Return random images [count, channels, 32, 32] and soft labels of three classes."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(count, channels, 32, 32, generator=generator)
        return images, torch.rand(count, 3, generator=generator).softmax(dim=1)

    def context(
        self, batch_indices: Sequence[int] = range(8), *, seed: int = 3, step: int = 5
    ) -> AugmentContext:
        """Return a context that mirrors half of the images."""
        return AugmentContext(
            seed=seed, step=step, batch_indices=batch_indices, horizontal_flip=True
        )

    def test_shapes_stay_and_targets_are_distributions(self) -> None:
        """Images keep shape and type, targets stay soft labels, for one and three channels."""
        for channels in (1, 3):
            images, targets = self.batch(channels=channels)
            varied, soft = self.augmentation(images, targets, self.context())
            assert varied.shape == images.shape and varied.dtype == torch.float32
            assert soft.shape == targets.shape and (soft >= 0).all()
            assert varied.isfinite().all()
            torch.testing.assert_close(soft.sum(dim=1), torch.ones(len(soft)))

    def test_inputs_are_left_alone(self) -> None:
        """Images and targets are not changed in place: they may be the training set itself."""
        images, targets = self.batch()
        copies = images.clone(), targets.clone()
        self.augmentation(images, targets, self.context())
        assert torch.equal(images, copies[0]) and torch.equal(targets, copies[1])

    def test_variation_follows_seed_and_step_alone(self) -> None:
        """A batch repeats exactly, and no global generator is used."""
        images, targets = self.batch()
        state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
        first = self.augmentation(images, targets, self.context())
        again = self.augmentation(images, targets, self.context())
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
        assert torch.equal(torch.get_rng_state(), state)
        assert np.array_equal(np.random.get_state()[1], legacy)
        for other in (self.context(seed=4), self.context(step=6)):
            varied = self.augmentation(images, targets, other)
            assert not all(map(torch.equal, varied, first))  # of features the targets alone vary

    def test_variation_follows_the_index_in_the_global_batch(self) -> None:
        """How a batch is split among workers makes no difference."""
        if self.mixes_images:
            return
        images, targets = self.batch()
        whole, soft = self.augmentation(images, targets, self.context())
        odd, labels = self.augmentation(images[1::2], targets[1::2], self.context(range(1, 8, 2)))
        torch.testing.assert_close(odd, whole[1::2])
        torch.testing.assert_close(labels, soft[1::2])

    def test_a_network_is_as_before_after_a_pass(self) -> None:
        """No hook outlives its pass, whether that ends well or in an error."""
        if not isinstance(self.augmentation, FeatureAugmentation):
            return
        images, targets = self.batch()
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model("test_resnet", in_chans=1, num_classes=3).eval()
        before = network(images)
        for step in range(8):  # some of them at the input, some inside
            context = self.context(step=step)
            varied, _ = self.augmentation(images, targets, context)
            with self.augmentation.hooked(network, context):
                logits = network(varied)
            assert logits.shape == before.shape and logits.isfinite().all()
            try:
                with self.augmentation.hooked(network, context):
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                pass
            assert not any(_hooks(module) for module in network.modules())
        assert torch.equal(network(images), before)


def _hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)
