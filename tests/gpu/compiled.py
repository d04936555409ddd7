"""Stage 5: is what torch.compile makes of the phases right? With CUDA graphs, on a GPU."""

from __future__ import annotations

from tests.gpu.common import Stage, small_config
from tests.gpu.correctness import check_syncs, compare, gradients


def main() -> None:
    """Compare compiled phases with eager ones."""
    stage = Stage("compiled")
    config = small_config(compile=True)
    stage.attempt(
        "compiled gradients against eager",
        lambda: compare(
            gradients(config, stage.device), gradients(small_config(), stage.device), 1e-3
        ),
    )
    accumulated = small_config(compile=True, accumulate=2)
    stage.attempt(
        "compiled gradients, accumulate=2",
        lambda: compare(
            gradients(accumulated, stage.device), gradients(small_config(), stage.device), 1e-3
        ),
    )
    stage.attempt("no host sync in 20 compiled steps", lambda: check_syncs(stage.device, config))


if __name__ == "__main__":
    main()
