"""Generation: many tenants' sequences of one decoder, a token each in every step.

`GenerationScheduler` decides which sequences run and which pages of the KV cache they have; it holds no tensor.
`GenerationRunner` computes a step, and `DecodeLoop` is the thread that does both and takes the next tokens. Start
reading at `loop`.
"""

from __future__ import annotations

from hmi.engine.decode.loop import DecodeLoops

__all__ = ["DecodeLoops"]
