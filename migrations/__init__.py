"""The catalog's schema, version by version; applied by `hmi.catalog.migrate`."""
