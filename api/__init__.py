"""The HTTP surface: OpenAI's files, batches and models, and `/v1/hmi/` for administration."""
