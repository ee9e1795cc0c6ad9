"""Caption far more sounds than one run can: a plan of shards, which any number of processes work through."""
