"""`python -m textcap` is the `textcap` command."""

from textcap.cli.app import main

if __name__ == "__main__":
    main()
