"""Write the env files that compose.yaml reads, with random passwords. Files that exist are left alone.

Run from the repository's root: `make docker-env`. Needs nothing but Python.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from hmi.catalog import mint_key

FOLDER = Path(__file__).parent


def env_files() -> dict[str, str]:
    """Content by file name. Only the process that needs a secret is given it."""
    postgres, redis = secrets.token_hex(24), secrets.token_hex(24)
    return {
        "postgres.env": f"POSTGRES_USER=hmi\nPOSTGRES_DB=hmi\nPOSTGRES_PASSWORD={postgres}\n",
        "redis.env": f"REDIS_PASSWORD={redis}\n",
        "hmi.env": (
            f"HMI_DATABASE_URL=postgresql+psycopg://hmi:{postgres}@postgres:5432/hmi\n"
            f"HMI_BROKER_URL=redis://:{redis}@redis:6379/0\n"
        ),
        "admin.env": f"HMI_ADMIN_KEY={mint_key().plaintext}\n",
        "flower.env": f"HMI_FLOWER_AUTH=operator:{secrets.token_hex(16)}\n",
    }


def main() -> None:
    files = env_files()
    there = [name for name in files if (FOLDER / name).exists()]
    if there:
        # New passwords beside old ones would not fit each other.
        sys.exit(f"left as they are, since docker/{there[0]} exists already; remove all docker/*.env for new ones")
    for name, content in files.items():
        handle = os.open(FOLDER / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(content)
        sys.stdout.write(f"docker/{name}\n")


if __name__ == "__main__":
    main()
