"""One queue mechanism for every kind of work: shards of batches, and fine-tuning jobs ("trainings").

A job is a row with the columns of `schema.QueuedJob`; `jobs.JobQueue` moves it between states for any such table, and
`shards` and `trainings` add what differs. A message to a worker carries a job's id and its attempt, nothing else.

            dispatch            claim             finish
    pending --(b)--> queued --(c)--> leased --(d)--> done, succeeded, failed
     ^  ^             |              |  |
     |  +----(g,h)----+              |  |
     +---------------(e,f)-----------+  +--(d)--> (extend: leased again)

    a  created pending          with the batch or fine-tuning job, in one transaction
    b  pending -> queued        room in flight; `attempt` grows by one; fair order over tenants
    c  queued -> leased         a worker claims the current attempt; the lease lasts `lease_seconds`
    d  leased -> an end         the worker finishes the job; `extend` prolongs the lease until then
    e  leased -> pending        the worker releases the job; counted as a failure only if the job caused it
    f  leased -> pending        the lease expired: the worker is dead or cut off; counted as a failure
    g  queued -> pending        no worker claimed the attempt in time: the message was lost
    h  queued -> pending        a training only: the worker is busy with another one
    i  pending -> split, done   a shard only: it failed too often; halves replace it, or its one line gets an error
    j  pending -> failed        a training only: it failed too often
    k  open -> dropped          a shard only: its batch was cancelled or expired
    l  open -> cancelled        a training only: its tenant cancelled it

Guarantees:
- Every transition is one conditional UPDATE on the state it starts from; those of a worker also name the attempt. A
  stale attempt changes nothing, so a job finishes once, whatever is delivered twice, late or out of order.
- Deadlines are compared by the database's clock only.
- A lost message costs time, not work: `requeue_lost` and `expire_leases` make every job pending again.
- A tenant's many jobs do not delay another's few: see `JobQueue.dispatch`.
"""

from __future__ import annotations

from hmi.catalog.queue import shards, training_events, training_results, trainings
from hmi.catalog.queue.jobs import JobMessage
from hmi.catalog.queue.shards import ClaimedShard, LineRange, ShardResult
from hmi.catalog.queue.training_results import TrainingResult
from hmi.catalog.queue.trainings import ClaimedTraining

__all__ = [
    "ClaimedShard",
    "ClaimedTraining",
    "JobMessage",
    "LineRange",
    "ShardResult",
    "TrainingResult",
    "shards",
    "training_events",
    "training_results",
    "trainings",
]
