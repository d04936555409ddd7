"""The synthetic sets of a comparison: where they are, whether they fit, who they learned from."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence

from gemix.config import PipelineConfig
from gemix.core.errors import ConfigError, DataError
from gemix.data.leakage.overlap import Split
from gemix.data.leakage.provenance import Provenance
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.runtime.training_sets import synthetic_sets


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetDirectories:
    """Directories of the synthetic sets of a comparison.

    Attributes:
        names: of the sets, in the order of the methods: the first one gives the mean entropy of
            smoothed labels.
        shared: by name, one a generator, for all draws of patients.
        retrained: by name, fraction and draw, of generators that learned from that draw alone.
        failures: why sets could not be made, by name.
    """

    names: tuple[str, ...] = ()
    shared: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    retrained: Mapping[tuple[str, float, int], str] = dataclasses.field(default_factory=dict)
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def of(self, name: str, fraction: float, draw: int) -> Sequence[str]:
        """Return the directories of a set for a draw of patients, one a generator."""
        retrained = self.retrained.get((name, fraction, draw))
        return self.shared[name] if retrained is None else (retrained,)

    def of_fraction(self, name: str, fraction: float) -> list[str]:
        """Return the directories of a set for all draws of a fraction of the patients."""
        retrained = [url for (*of, _), url in self.retrained.items() if of == [name, fraction]]
        return retrained or list(self.shared[name])

    def all(self) -> list[tuple[str, str]]:
        """Return name and directory of every set that there is."""
        shared = [(name, url) for name, urls in self.shared.items() for url in urls]
        made = [(name, url) for (name, _, _), url in self.retrained.items()]
        return [(name, url) for name, url in [*shared, *made] if name not in self.failures]


def find_sets(
    config: PipelineConfig,
    workspace: Workspace,
    names: Sequence[str],
    real: Manifest,
    log: logging.Logger,
) -> dict[str, tuple[str, ...]]:
    """Return the directories of sets by name, one a generator.

    A name of ``compare.sets`` stands for these directories, any other one for a set of the work
    directory.

    Raises:
        DataError: for a set that is not finished.
        ConfigError: for a set of other classes or another shape than the real images, or two sets
            of one name by the same generator.
    """
    elsewhere = config.compare.directories
    here = tuple(name for name in names if name not in elsewhere)
    in_workdir = synthetic_sets(config, workspace, here, log) if here else {}
    sets = {name: (url,) for name, url in in_workdir.items()}
    for name in names:
        for url in elsewhere.get(name, ()):
            if not Store(url).exists(MANIFEST):
                raise DataError(
                    f"compare.sets: {name}={url}: no finished set, it has no {MANIFEST}; correct "
                    "the address"
                )
        if name in elsewhere:
            sets[name] = tuple(Store(url).url for url in elsewhere[name])
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


def generator_patients(
    sets: SetDirectories, fraction: float, training_patients: Sequence[str]
) -> dict[str, int | None]:
    """Return how many training patients the generator of each set has learned from, by name.

    Of several generators the most; None if it is unknown.
    """
    found: dict[str, int | None] = {}
    for name in sets.names:
        sources = [source_of(name, url) for url in sets.of_fraction(name, fraction)]
        if any(source.unknown for source in sources):
            found[name] = None
            continue
        known = ({g for table in one for g in table["group"].to_pylist()} for one in sources)
        found[name] = max(len(groups.intersection(training_patients)) for groups in known)
    return found


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
