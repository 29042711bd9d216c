"""`python -m encdec` is `encdec`."""

from encdec.cli import main

main()
