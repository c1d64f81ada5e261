"""What stands in for the row of an n-gram that no table holds, from the rows of its tokens alone.

A tree always holds the rows of single tokens, and of the three that make a window most of the window's own row can be
told by a small network, at a few hundredths of what the lower layers take. It is trained to agree with one function,
the base's or a domain's (`hmi.training.distill`), and belongs to it. SkipBERT (Wang et al., ACL 2022) adds up a
vector for each token of a window in place of a row; here they are looked up as rows are, and what the tokens do to one
another is learnt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmi.adapters import Estimator
from hmi.errors import Corrupt
from hmi.models.layers.dense import make_dense, pad_rows

__all__ = ["RowEstimator", "ServedEstimator"]

_CHUNK = 2048  # n-grams at once: what is gathered for them stays small
_WINDOW = 3
_NAMES = {
    "inner": "inner.weight",
    "inner_bias": "inner.bias",
    "outer": "outer.weight",
    "outer_bias": "outer.bias",
    "linear": "linear.weight",
    "error": "error",
}
_TOKEN = 1  # of a key's (prev, mid, next) the one whose row it is


class RowEstimator(nn.Module):
    """estimate = row(mid) + linear(x) + outer(gelu(inner(x))), of x = the rows of prev, mid, next side by side.

    Absent neighbours are rows of zeros.

    Attributes:
        error: float32 `[1]`, |estimate - row| / |row|, the mean over n-grams that were not learnt from.
    """

    error: Tensor

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(_WINDOW * hidden_size, size)
        self.outer = nn.Linear(size, hidden_size)
        self.linear = nn.Linear(_WINDOW * hidden_size, hidden_size, bias=False)
        self.register_buffer("error", torch.ones(1))

    @classmethod
    def of(cls, weights: Estimator) -> RowEstimator:
        """In float32, on the host; it learns nothing."""
        made = cls(len(weights.outer), weights.size)
        tensors = {name: torch.from_numpy(array.copy()) for name, array in weights.arrays().items()}
        made.load_state_dict({_NAMES[name]: tensor for name, tensor in tensors.items()}, assign=True)
        return made.requires_grad_(False)

    def weights(self) -> Estimator:
        """As a domain's delta carries them."""
        state = self.state_dict()
        return Estimator(**{name: state[own].float().cpu().numpy().copy() for name, own in _NAMES.items()})

    def forward(self, tokens: Tensor, index: Tensor) -> Tensor:
        """
        Args:
            tokens: Rows of tokens alone, one of zeros among them, `[m, H]`.
            index: int64 `[n, 3]`, which of them prev, mid and next are.

        Returns:
            `[n, H]`.
        """
        x = tokens[index].flatten(1)
        moved: Tensor = self.linear(x) + self.outer(F.gelu(self.inner(x)))
        return tokens[index[:, _TOKEN]] + moved


class ServedEstimator:
    """A `RowEstimator` for serving: what a token does in each place is computed once for all n-grams that have it.

    It takes the tensors over. Raises `Corrupt` where its error is none.
    """

    def __init__(self, estimator: RowEstimator) -> None:
        inner, linear = estimator.inner, estimator.linear
        self._size = inner.out_features
        joined = torch.cat([inner.weight, linear.weight])  # [size + H, 3 * H]
        places = joined.view(len(joined), _WINDOW, -1).transpose(0, 1)  # [3, size + H, H]
        bias = joined.new_zeros(_WINDOW, len(joined))
        bias[_TOKEN, : self._size] = inner.bias  # the token itself is always there
        self._places = make_dense(places.reshape(_WINDOW * len(joined), -1).contiguous(), bias.flatten())
        self._outer = make_dense(estimator.outer.weight, estimator.outer.bias)
        self.error = float(estimator.error)
        if not 0 <= self.error <= 1:
            raise Corrupt(f"estimator.error must lie between 0 and 1, not {self.error}")
        self.nbytes = joined.nbytes + bias.nbytes + estimator.outer.weight.nbytes + estimator.outer.bias.nbytes

    def __call__(self, tokens: Tensor, index: Tensor) -> Tensor:
        """As `RowEstimator.forward`, in the dtype of its weights."""
        placed = self._places(pad_rows(tokens)).view(-1, _WINDOW, self._size + tokens.shape[1])
        return torch.cat([self._estimate(tokens, placed, part) for part in torch.split(index, _CHUNK)])

    def _estimate(self, tokens: Tensor, placed: Tensor, index: Tensor) -> Tensor:
        total = placed[index[:, 0], 0]
        for place in range(1, _WINDOW):
            total += placed[index[:, place], place]
        hidden = pad_rows(F.gelu(total[:, : self._size]))
        moved = pad_rows(total[:, self._size :] + tokens[index[:, _TOKEN]])
        return self._outer.plus(hidden, moved)[: len(index)]
