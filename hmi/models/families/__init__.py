"""The model families, BERT and decoders (GPT-2, Llama), and the base artifacts that hold their weights.

Each family has two forms. `bert.py` and `decoder.py`, on the common base in `hplm.py`, are written to be read, and
training runs them. `served_bert.py` and `served_decoder.py` compute the same for serving, with the adapters of many
tenants, behind the protocols in `protocol.py`. `loader.py` reads and writes base artifacts.
"""

from __future__ import annotations

from hmi.models.families.bert import BertLayer, HBert
from hmi.models.families.decoder import HGpt
from hmi.models.families.hplm import HPLM, WINDOW
from hmi.models.families.loader import (
    TOKENIZER,
    build_hplm,
    load_hbert,
    load_hgpt,
    load_hplm,
    load_served,
    load_tokenizer,
    save_hplm,
)
from hmi.models.families.protocol import ServedModel
from hmi.models.families.served_bert import ServedBert
from hmi.models.families.served_decoder import ServedGpt

__all__ = [
    "HPLM",
    "TOKENIZER",
    "WINDOW",
    "BertLayer",
    "HBert",
    "HGpt",
    "ServedBert",
    "ServedGpt",
    "ServedModel",
    "build_hplm",
    "load_hbert",
    "load_hgpt",
    "load_hplm",
    "load_served",
    "load_tokenizer",
    "save_hplm",
]
