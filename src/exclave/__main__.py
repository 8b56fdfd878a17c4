"""`python -m exclave` is the command `exclave`."""

from exclave.cli.main import main

main()
