"""TODO"""

from __future__ import annotations

from hmi.models.families.bert import HBert, Layer
from hmi.models.families.decoder import HGpt
from hmi.models.families.loader import (
    HPLM,
    TOKENIZER,
    hplm_of,
    load_hbert,
    load_hgpt,
    load_hplm,
    load_served,
    load_spec,
    load_tokenizer,
    save_hplm,
)
from hmi.models.families.protocol import ServedDecoder, ServedModel
from hmi.models.families.served_bert import ServedBert
from hmi.models.families.served_decoder import ServedGpt

__all__ = [
    "HPLM",
    "TOKENIZER",
    "HBert",
    "HGpt",
    "Layer",
    "ServedBert",
    "ServedDecoder",
    "ServedGpt",
    "ServedModel",
    "hplm_of",
    "load_hbert",
    "load_hgpt",
    "load_hplm",
    "load_served",
    "load_spec",
    "load_tokenizer",
    "save_hplm",
]
