"""The paper's experiments on the sound world with the embedded models: `python -m benchmarks.paper`."""
