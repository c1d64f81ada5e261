"""The catalog's schema, version by version; applied by `hmi.catalog.upgrade_schema`."""
