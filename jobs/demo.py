"""Two sites on phantoms: a large one trains a generator, one with few other patients uses it."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from gemix.config import PipelineConfig, load
from gemix.core.errors import ConfigError
from gemix.io.workspace import Workspace
from jobs._runtime.command import Request
from jobs._runtime.ray_executor import RayExecutor
from jobs.pipeline import COMMAND as PIPELINE
from jobs.pipeline import add_redo, print_summary

if TYPE_CHECKING:
    from gemix.steps.runtime.executor import Executor

LARGE_SITE = (
    *("data.phantom.patients_per_class=800", "data.phantom.slices_per_patient=2"),
    # from the networks that come with gemix, whose patients are others still
    *("gan.init_from=zoo:phantom32", "gan.kimg=24", "gan.snapshot_kimg=6", "gan.batch=16"),
    *("gan.g_lr=0.003", "gan.d_lr=0.003", "gan.ema_kimg=4", "gan.ada_kimg=200"),
    "teacher.epochs=6",
)
"""Overrides of the preset ``demo`` for the large site."""

LARGE_SITE_SEED = "data.phantom.seed=78"
"""Override after those of the command line: the two sites must have different patients."""

SMALL_SITE = (
    # a tenth of 165 patients to train with, three tenths for validation, and the rest judges
    *("data.phantom.seed=2", "data.phantom.patients_per_class=55"),
    *("data.val_fraction=0.3", "data.test_fraction=0.6"),
    # as many images shown as the preset shows of 297 patients
    *("classifier.epochs=8", "classifier.epoch_images=891", "classifier.seeds=5"),
    # whom the images may give away are the large site's patients, which are not at hand here
    *("synthesis.count=3000", "audit.in_pipeline=false"),
)
"""Overrides of the preset ``demo`` for the small site."""


def run_sites(
    large: PipelineConfig,
    small: PipelineConfig,
    workspace: Workspace,
    *,
    executor: Executor,
    overwrite: bool = False,
    redo: bool = False,
) -> dict[str, Any]:
    """Train and export the large site's generator; run the small site's pipeline with it.

    Args:
        small: generator and teacher are replaced by those that the large site exports.
        workspace: of the small site; ``large-site`` and ``shared`` below it are of the large one.
        overwrite, redo: as :func:`gemix.steps.pipeline.run_pipeline` has them, for both sites. The
            small site starts over too where the generator has changed.

    Returns:
        The small site's summary.

    Raises:
        ConfigError: if both sites have the same patients.
    """
    if large.data.phantom.seed == small.data.phantom.seed:
        raise ConfigError(
            f"data.phantom.seed={small.data.phantom.seed}: the large site has the same patients, "
            "and its generator has seen them; choose another seed"
        )
    # here, since they load PyTorch
    from gemix.gan.checkpoints.generator_io import MARKER
    from gemix.io.storage import Store
    from gemix.steps.export_gan import export_gan
    from gemix.steps.pipeline import run_pipeline

    theirs = Workspace.at(f"{workspace.workdir}/large-site")
    run_pipeline(
        large, theirs, executor=executor, overwrite=overwrite, redo=redo, until="train-gan"
    )
    shared = Store(f"{workspace.workdir}/shared")
    earlier = shared.read_bytes(MARKER) if shared.exists(MARKER) else None
    export_gan(theirs.gan, shared.url, teacher_url=theirs.teacher, for_others=True, overwrite=True)
    synthesis = dataclasses.replace(
        small.synthesis, generator=shared.url, teacher=f"{shared.url}/teacher"
    )
    return run_pipeline(
        dataclasses.replace(small, synthesis=synthesis),
        workspace,
        executor=executor,
        overwrite=overwrite or earlier not in (None, shared.read_bytes(MARKER)),
        redo=redo,
    )


def _run(request: Request) -> None:
    options = request.options
    summary = run_sites(
        load(options.config, [*LARGE_SITE, *options.overrides, LARGE_SITE_SEED]),
        load(options.config, [*SMALL_SITE, *options.overrides]),
        request.workspace,
        executor=RayExecutor(),
        overwrite=request.overwrite,
        redo=options.redo,
    )
    print_summary(summary, request.workspace)


COMMAND = dataclasses.replace(
    PIPELINE,
    name="demo",
    summary="Run the whole path on built-in chest phantoms: no data, no GPU, no configuration. A "
    "large\nsite trains a generator and exports it; one with few other patients adds its images.",
    reads="nothing",
    writes="<workdir>: what `gemix pipeline` writes, of the small site; <workdir>/large-site: of "
    "the large one,\n        up to the generator; <workdir>/shared: its generator and teacher",
    costs="10 to 20 minutes on 2 CPU cores",
    run=_run,
    add_options=add_redo,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
