"""The command line of textcap."""
