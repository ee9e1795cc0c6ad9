"""Caption far more sounds than one run can: a plan of shards, which any number of processes work through."""

import textcap.data.parquet  # noqa: F401 - tells what is missing, before a module here imports it
