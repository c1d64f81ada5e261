"""The tensors of a base model by its spec, without torch, to check an upload by its header."""

from __future__ import annotations

from hmi.spec import Family, HPLMSpec

Shapes = dict[str, tuple[int, ...]]
_WINDOW = 3  # tokens


def expected_shapes(spec: HPLMSpec) -> Shapes:
    """Every tensor, in torch's layout of linear layers (`[out, in]`)."""
    shapes = _decoder(spec) if spec.family.decodes else _encoder(spec)
    if spec.k:
        shapes |= _linear("window.projection", spec.hidden_size, spec.hidden_size, has_bias=True)
        if spec.rope_theta is None:
            shapes |= {
                "window.position": (_WINDOW, spec.hidden_size),
                "correction.position": (spec.max_positions, spec.hidden_size),
            }
    return shapes | _estimator(spec)


def _encoder(spec: HPLMSpec) -> Shapes:
    hidden = spec.hidden_size
    shapes: Shapes = {
        "embeddings.word": (spec.vocab_size, hidden),
        "embeddings.position": (spec.max_positions, hidden),
        "embeddings.token_type": (spec.type_vocab_size, hidden),
        **_norm("embeddings.norm", hidden, has_bias=True),
    }
    for layer in range(spec.layers):
        shapes |= _layer(spec, layer, ("attention_norm", "output_norm"), has_bias=True)
    if spec.has_pooler:
        shapes |= _linear("pooler", hidden, hidden, has_bias=True)
    return shapes


def _decoder(spec: HPLMSpec) -> Shapes:
    hidden, has_bias = spec.hidden_size, spec.family is Family.GPT2
    shapes: Shapes = {"embeddings.word": (spec.vocab_size, hidden), **_norm("norm", hidden, has_bias=has_bias)}
    if spec.rope_theta is None:
        shapes["embeddings.position"] = (spec.max_positions, hidden)
    for layer in range(spec.layers):
        shapes |= _layer(spec, layer, ("attention_norm", "inner_norm"), has_bias=has_bias)
    if not spec.tied:
        shapes["head"] = (spec.vocab_size, hidden)
    return shapes


def _estimator(spec: HPLMSpec) -> Shapes:
    if not spec.estimator_size:
        return {}
    read = _WINDOW * spec.hidden_size
    return {
        **_linear("estimator.inner", read, spec.estimator_size, has_bias=True),
        **_linear("estimator.outer", spec.estimator_size, spec.hidden_size, has_bias=True),
        **_linear("estimator.linear", read, spec.hidden_size, has_bias=False),
        "estimator.error": (1,),
    }


def _layer(spec: HPLMSpec, layer: int, norms: tuple[str, str], *, has_bias: bool) -> Shapes:
    shapes: Shapes = {}
    for site in spec.sites:
        shapes |= _linear(f"layers.{layer}.{site.value}", *spec.site_shape(site), has_bias=has_bias)
    for norm in norms:
        shapes |= _norm(f"layers.{layer}.{norm}", spec.hidden_size, has_bias=has_bias)
    return shapes


def _linear(name: str, inputs: int, outputs: int, *, has_bias: bool) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if has_bias else {})


def _norm(name: str, size: int, *, has_bias: bool) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (size,)}
    return shapes | ({f"{name}.bias": (size,)} if has_bias else {})
