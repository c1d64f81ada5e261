"""A domain delta as parameters."""

from __future__ import annotations

import torch
from torch import nn

from hmi.adapters import Activation, Adapter, AdapterKind, Lora
from hmi.adapters.maths import LoraTensors, SingleAdapter, TrainingAdapters
from hmi.spec import HPLMSpec, Site
from hmi.training.trainable.parameters import LoraPairs, array_of, convert_parts, lora_pairs, tensors_of


class TrainableDelta(nn.Module):
    """A domain delta: LoRA pairs on every lower layer, no head.

    The delta `above`, an ancestor's, is not trained: its pairs stay beside the new ones, and the ranks add up.
    """

    def __init__(
        self,
        spec: HPLMSpec,
        *,
        rank: int,
        sites: tuple[Site, ...],
        generator: torch.Generator,
        above: Adapter | None = None,
    ) -> None:
        super().__init__()
        self._own = lora_pairs(spec, range(spec.k), sites, rank, generator)
        self.body = nn.ParameterList(tensor for part in self._own.values() for tensor in tensors_of(part))
        self._above = above.lora if above else {}

    def maths(self, dtype: torch.dtype) -> TrainingAdapters:
        """The delta in `dtype`; gradients flow back to the float32 master weights."""
        return SingleAdapter(convert_parts(self._joined(), LoraTensors, lambda tensor: tensor.to(dtype)), {})

    def export(self) -> Adapter:
        """The trained weights as the delta that rows are computed with."""
        return Adapter(
            kind=AdapterKind.LORA,
            lora=convert_parts(self._joined(), Lora, array_of),
            bottleneck={},
            adapter_before_norm=True,
            activation=Activation.RELU,
            head=None,
        )

    def _joined(self) -> LoraPairs:
        device = self.body[0].device
        joined = dict(self._own)
        for key, part in self._above.items():
            a, b = (torch.from_numpy(array).to(device) for array in (part.a, part.b))
            own = joined.get(key)
            joined[key] = (
                LoraTensors(a, b) if own is None else LoraTensors(torch.cat([a, own.a]), torch.cat([b, own.b], 1))
            )
        return joined
