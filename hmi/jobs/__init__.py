"""What the API and the workers share about batches: checking an input file and cutting it into shards (`check`,
`weight`), the items and bodies of its lines (`answers`, `choices`), joining the results (`result_files`), the messages
between processes (`messages`) and the HTTP numbers of errors (`status`). Start at `check`, then `answers`.
"""

from __future__ import annotations

from hmi.jobs.answers import NotRun, error_line, items_of, line_ids, output_line, response_body
from hmi.jobs.check import CheckedInput, check_input
from hmi.jobs.messages import QueueName, TaskName, make_client, ping, send
from hmi.jobs.result_files import AssembledFile, assemble
from hmi.jobs.status import ErrorDetail, error_detail, error_type, http_status
from hmi.jobs.weight import Weight, weigh_item

__all__ = [
    "AssembledFile",
    "CheckedInput",
    "ErrorDetail",
    "NotRun",
    "QueueName",
    "TaskName",
    "Weight",
    "assemble",
    "check_input",
    "error_detail",
    "error_line",
    "error_type",
    "http_status",
    "items_of",
    "line_ids",
    "make_client",
    "output_line",
    "ping",
    "response_body",
    "send",
    "weigh_item",
]
