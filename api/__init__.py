"""The HTTP API: OpenAI's files, batches, models and fine-tuning, and `/v1/hmi/` for administration.

Each thing has one module or package, with its endpoints and all that only they need. Start at `app`, then `routing` and
`errors`, which all endpoints share; the bodies are `hmi.schemas`.
"""
