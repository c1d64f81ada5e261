"""The device side of the service: Celery workers that run shards, build trees and keep the record straight."""
