"""The Triton kernels compile for GPUs that are not here, and compute in registers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

FLOAT, HALF, NONE = "*fp32", "*bf16", "constexpr"
ACTIVATION = {
    "x": HALF,
    "bias": FLOAT,
    "y": HALF,
    "gradient": HALF,
    "of_x": HALF,
    "of_sums": FLOAT,
    "by_gradient": HALF,
    "slope": "fp32",
    "gain": "fp32",
    "clamp": "fp32",
}
IN_GENERATOR = ACTIVATION | {
    "demodulation": FLOAT,
    "noise": FLOAT,
    "noise_strength": FLOAT,
    "styles": FLOAT,
    "residual": NONE,
    "by_x": HALF,
    "partial": FLOAT,
}
IN_DISCRIMINATOR = ACTIVATION | {
    "demodulation": NONE,
    "noise": NONE,
    "noise_strength": NONE,
    "styles": NONE,
    "residual": HALF,
    "by_x": NONE,
    "partial": NONE,
}
TILE = {"CLAMPED": True, "ROWS": 32, "CHANNELS": 64}
TILE_WITH_SUMS = TILE | {"ROWS": 8}
FILTER = {"x": HALF, "fir": FLOAT, "out": HALF, "gain": "fp32"}
BLUR = {"ROWS": 4, "COLUMNS": 4, "PIXELS": 16, "CHANNELS": 64}
UPSAMPLE = {"UP": 2, "DOWN": 1, "ROWS": 4, "COLUMNS": 4, "PIXELS": 32, "CHANNELS": 64}
DOWNSAMPLE = UPSAMPLE | {"UP": 1, "DOWN": 2}
L4, H100 = 89, 90
KERNELS = [  # name, types of the arguments (else int32), constants, architecture
    ("_forward_kernel", IN_GENERATOR, TILE, H100),
    ("_forward_kernel", IN_DISCRIMINATOR, TILE, H100),
    ("_backward_kernel", IN_GENERATOR, TILE_WITH_SUMS, H100),
    ("_backward_kernel", IN_GENERATOR, TILE_WITH_SUMS, L4),
    ("_backward_kernel", IN_DISCRIMINATOR | {"partial": FLOAT}, TILE_WITH_SUMS, H100),
    ("_double_backward_kernel", IN_GENERATOR, TILE_WITH_SUMS, H100),
    ("_double_backward_kernel", IN_GENERATOR, TILE_WITH_SUMS, L4),
    ("_double_backward_kernel", IN_DISCRIMINATOR, TILE, H100),
    ("_blur_kernel", FILTER, BLUR, H100),
    ("_blur_kernel", FILTER, BLUR, L4),
    ("_correlate_kernel", FILTER, UPSAMPLE, H100),
    ("_correlate_kernel", FILTER, DOWNSAMPLE, L4),
]


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize(("name", "types", "constants", "architecture"), KERNELS)
def test_it_compiles_without_spilling(name, types, constants, architecture, tmp_path):
    from gemix.gan.models import bias_act_triton, fir_triton

    module = bias_act_triton if hasattr(bias_act_triton, name) else fir_triton
    code = machine_code(getattr(module, name), types, constants, architecture, tmp_path)
    wide = r"\bLDG\S*\.64" if constants is TILE_WITH_SUMS else r"\bLDG\S*\.128"
    assert re.findall(wide, code), "no wide reads"
    assert not re.findall(r"\b(LDL|STL)\b", code), "registers are spilled to memory"


def machine_code(kernel, types, constants, architecture, tmp_path: Path) -> str:
    """Return the assembly of a kernel."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {
        argument: "constexpr" if argument in constants else types.get(argument, "i32")
        for argument in kernel.arg_names
    }
    constants = {
        argument: constants.get(argument)
        for argument, kind in signature.items()
        if kind == "constexpr"
    }
    aligned = {  # as allocations are, and channels of the networks
        (place,): [["tt.divisibility", 16]]
        for place, (argument, kind) in enumerate(signature.items())
        if kind.startswith("*") or argument == "channels"
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    built = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(built.asm["cubin"])
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    found = subprocess.run(
        [tools / "cuobjdump", "-sass", cubin], capture_output=True, text=True, check=True
    )
    return found.stdout
