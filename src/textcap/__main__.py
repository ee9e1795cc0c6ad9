"""Run the `textcap` command as `python -m textcap`."""

from textcap.cli.app import main

if __name__ == "__main__":
    main()
