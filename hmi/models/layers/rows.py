"""Rows of n-grams outside the tables: estimated from rows of single tokens, or computed and rounded like a table's.

A tree always holds the rows of single tokens. A small network estimates a window's row from the rows of its three
tokens, for a few hundredths of the cost of the lower layers. It is trained to agree with one function, the base's or a
domain's (`hmi.training.distill`), and belongs to it. SkipBERT (Wang et al., ACL 2022) adds up a vector for each token
of a window in place of a row; here the tokens' rows are looked up, and their interaction is learnt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmi.adapters import Estimator
from hmi.errors import Corrupt
from hmi.models.layers.dense import join_dense, make_dense, pad_rows
from hmi.spec import RowDtype

_CHUNK = 2048  # n-grams at once, which bounds the memory of what is gathered for them
_WINDOW = 3
_OWN_TOKEN = 1  # the index, in a key's (prev, mid, next), of the token whose row it is
# Fields of `Estimator`, and the names of their tensors in the module.
_NAMES = {
    "inner": "inner.weight",
    "inner_bias": "inner.bias",
    "outer": "outer.weight",
    "outer_bias": "outer.bias",
    "linear": "linear.weight",
    "error": "error",
}
_SMALLEST_PEAK = 2.0**-100  # a row below it is zero: its scale would not be a normal number


class RowEstimator(nn.Module):
    """estimate = row(mid) + linear(x) + outer(gelu(inner(x))), where x is the rows of prev, mid, next side by side.

    The rows of absent neighbours are zero.
    """

    error: Tensor  # float32 [1], the mean of |estimate - row| / |row| over n-grams outside the training data

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(_WINDOW * hidden_size, size)
        self.outer = nn.Linear(size, hidden_size)
        self.linear = nn.Linear(_WINDOW * hidden_size, hidden_size, bias=False)
        self.register_buffer("error", torch.ones(1))

    @classmethod
    def of(cls, weights: Estimator) -> RowEstimator:
        """Make an estimator in float32 on the host, without gradients."""
        made = cls(len(weights.outer), weights.size)
        tensors = {_NAMES[name]: torch.from_numpy(array.copy()) for name, array in weights.arrays().items()}
        made.load_state_dict(tensors, assign=True)
        return made.requires_grad_(False)

    def weights(self) -> Estimator:
        """Return the weights as a domain's delta carries them."""
        state = self.state_dict()
        return Estimator(**{name: state[own].float().cpu().numpy().copy() for name, own in _NAMES.items()})

    def forward(self, tokens: Tensor, index: Tensor) -> Tensor:
        """Estimate rows, [n, H].

        Args:
            tokens: [m, H], rows of single tokens, including a row of zeros.
            index: int64 [n, 3], the rows of prev, mid and next in `tokens`.
        """
        x = tokens[index].flatten(1)  # [n, 3 * H]
        correction: Tensor = self.linear(x) + self.outer(F.gelu(self.inner(x)))
        return tokens[index[:, _OWN_TOKEN]] + correction


class ServedEstimator:
    """A `RowEstimator` for serving: the products of a token in each place are computed once for all its n-grams.

    It takes the tensors over. Raises `Corrupt` where the error is not between 0 and 1.
    """

    def __init__(self, estimator: RowEstimator) -> None:
        inner, linear = estimator.inner, estimator.linear
        self._size = inner.out_features
        joined = torch.cat([inner.weight, linear.weight])  # [size + H, 3 * H]
        places = joined.view(len(joined), _WINDOW, -1).transpose(0, 1)  # [3, size + H, H]
        bias = joined.new_zeros(_WINDOW, len(joined))
        bias[_OWN_TOKEN, : self._size] = inner.bias  # the token itself is always present
        self._places = make_dense(places.reshape(_WINDOW * len(joined), -1).contiguous(), bias.flatten())
        self._outer = join_dense(estimator.outer)
        self.error = float(estimator.error)
        if not 0 <= self.error <= 1:
            raise Corrupt(f"estimator.error must lie between 0 and 1, not {self.error}")
        self.nbytes = joined.nbytes + bias.nbytes + estimator.outer.weight.nbytes + estimator.outer.bias.nbytes

    def __call__(self, tokens: Tensor, index: Tensor) -> Tensor:
        """As `RowEstimator.forward`, in the dtype of its weights."""
        placed = self._places(pad_rows(tokens)).view(-1, _WINDOW, self._size + tokens.shape[1])  # [m, 3, size + H]
        return torch.cat([self._estimate(tokens, placed, part) for part in torch.split(index, _CHUNK)])

    def _estimate(self, tokens: Tensor, placed: Tensor, index: Tensor) -> Tensor:
        total = placed[index[:, 0], 0]  # [n, size + H]
        for place in range(1, _WINDOW):
            total += placed[index[:, place], place]
        hidden = pad_rows(F.gelu(total[:, : self._size]))
        linear = pad_rows(total[:, self._size :] + tokens[index[:, _OWN_TOKEN]])
        return self._outer.plus(hidden, linear)[: len(index)]


def round_rows(rows: Tensor, dtype: RowDtype) -> Tensor:
    """Round rows float32 [n, hidden] as a table stores them; return them as float32.

    The arithmetic is that of `hmi.knowledge.store.rows.round_trip`, to the bit: an answer does not depend on whether a
    row was looked up or computed. Values that are not finite stay so, or exceed float16 and become so.
    """
    if dtype is RowDtype.FLOAT16:
        return rows.half().float()
    peak = rows.abs().amax(dim=1, keepdim=True)  # [n, 1]
    scale = peak / 127
    scale = torch.where(peak < _SMALLEST_PEAK, torch.zeros_like(scale), scale)
    # With at most 17 significant bits every product code x scale is exact.
    scale = ((scale.view(torch.int32) + 0x7F) & ~0x7F).view(torch.float32)
    divisor = torch.where(scale > 0, scale, torch.full_like(scale, torch.inf))
    # Adding zero removes negative zeros, which int8 codes do not have.
    return torch.round(rows / divisor) * scale + 0.0
