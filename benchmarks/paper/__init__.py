"""The experiments of the paper on the sound world and the embedded models; `python -m benchmarks.paper`."""
