"""Run the dial: `python -m benchmarks.dial`."""

from benchmarks.dial.run import main

if __name__ == "__main__":
    main()
