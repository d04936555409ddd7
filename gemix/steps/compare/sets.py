"""The synthetic sets of a comparison: where they are, whether they fit, who they learned from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from gemix.comparison.method import Method
from gemix.config import PipelineConfig
from gemix.core.errors import ConfigError, DataError
from gemix.data.leakage.overlap import Split
from gemix.data.leakage.provenance import Provenance
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.runtime.training_sets import synthetic_sets


def find_sets(
    config: PipelineConfig,
    workspace: Workspace,
    methods: Sequence[Method],
    real: Manifest,
    log: logging.Logger,
) -> dict[str, tuple[str, ...]]:
    """Return the directories of the sets that the methods name, one a generator.

    A name of ``compare.sets`` stands for these directories, any other one for a set of the work
    directory.

    Raises:
        DataError: for a set that is not finished.
        ConfigError: for a set of other classes or another shape than the real images, or two sets
            of one name by the same generator.
    """
    names = dict.fromkeys(method.synthetic for method in methods if method.synthetic)
    elsewhere = config.compare.directories
    here = tuple(name for name in names if name not in elsewhere)
    in_workdir = synthetic_sets(config, workspace, here, log) if here else {}
    found = {name: (url,) for name, url in in_workdir.items()}
    for name in names:
        for url in elsewhere.get(name, ()):
            if not Store(url).exists(MANIFEST):
                raise DataError(
                    f"compare.sets: {name}={url}: no finished set, it has no {MANIFEST}; correct "
                    "the address"
                )
    # in the order of the methods: the first set gives the mean entropy of smoothed labels
    sets = {
        name: tuple(Store(url).url for url in elsewhere[name]) if name in elsewhere else found[name]
        for name in names
    }
    for name, urls in sets.items():
        _check(name, [Manifest.load(Store(url)) for url in urls], urls, real)
    return sets


def source_of(name: str, url: str) -> Split | Provenance:
    """Return what a classifier has learned from with a set, besides the real images.

    That is what its generator learned from; of a set of real images, another site's for one, the
    images themselves.
    """
    if Manifest.load(Store(url)).kind == "real":
        return Split(Store(url), "train")
    return Provenance(Store(url), f"the generator of the {name} images")


def titles_of(sets: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the directory of each set; several of one name are numbered."""
    return {
        name if len(urls) == 1 else f"{name}.{number}": url
        for name, urls in sets.items()
        for number, url in enumerate(urls)
    }


def known_patients(
    sources: Sequence[Split | Provenance], training_patients: Sequence[str]
) -> int | None:
    """Return how many training patients the generator of a set has learned from.

    Of several generators the most; None if it is unknown.
    """
    if any(source.unknown for source in sources):
        return None
    known = [{group for table in one for group in table["group"].to_pylist()} for one in sources]
    return max(len(groups.intersection(training_patients)) for groups in known)


def _check(name: str, found: Sequence[Manifest], urls: Sequence[str], real: Manifest) -> None:
    for manifest, url in zip(found, urls, strict=True):
        if not manifest.matches(real.classes, real.image_shape):
            raise ConfigError(
                f"compare.methods: {name} in {url} has classes {list(manifest.classes)} and images "
                f"of {manifest.image_shape}, the real set {list(real.classes)} and "
                f"{real.image_shape}; synthesize it from a generator of these data"
            )
        if not manifest.images("train"):
            raise ConfigError(f"compare.methods: {name} in {url} has no images of the split train")
    made_by = [manifest.origin.get("generator") or manifest.digest for manifest in found]
    if len(set(made_by)) < len(made_by):
        raise ConfigError(
            f"compare.sets: {name} names {len(urls)} sets, and two of them are of the same "
            "generator; several sets of one name are of generators that were trained with "
            "different gan.seed"
        )
