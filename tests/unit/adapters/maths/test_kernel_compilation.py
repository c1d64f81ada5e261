"""The Triton program through the whole compiler, down to machine code: no GPU is needed for that.

The interpreter runs things that the compiler refuses, so this is the other half of what can be known without one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hmi.adapters import Activation
from hmi.adapters.maths import kernels, triton_programs

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
SHARED_BYTES = 99 * 1024  # what one program may take on every device from Ampere on; many have more


@pytest.mark.parametrize(
    ("capability", "dtype", "width", "outputs", "tokens", "max_rank", "activation"),
    [
        (80, torch.bfloat16, 768, 3072, 64, 16, None),
        (80, torch.float32, 384, 384, 64, 16, Activation.TANH),
        (90, torch.bfloat16, 768, 768, 256, 64, Activation.GELU),
        (90, torch.float16, 48, 48, 16, 300, Activation.SWISH),
    ],
)
def test_program_compiles_and_fits(
    capability: int,
    dtype: torch.dtype,
    width: int,
    outputs: int,
    tokens: int,
    max_rank: int,
    activation: Activation | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {
        "WIDTH": width,
        "IN": width,
        "OUT": outputs,
        "BIASED": activation is not None,
        "ACTIVATION": (activation or Activation.IDENTITY).value,
        "OPERAND": kernels._operand(dtype),
        **kernels._blocks(width, tokens, max_rank, dtype),
    }
    pointers = dict.fromkeys(["y", "x", "arena"], f"*{NAMES[dtype]}")
    pointers |= dict.fromkeys(["ranks", "offsets", "index"], "*i64")
    names = triton_programs.segmented.arg_names
    signature = {name: pointers.get(name, "constexpr" if name in constants else "i32") for name in names}
    aligned = {(number,): [["tt.divisibility", 16]] for number, name in enumerate(names) if name in pointers}
    source = ASTSource(triton_programs.segmented, signature, constants, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=kernels._OPTIONS)
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= SHARED_BYTES
