"""`python -m encdec.cli` is `encdec`."""

from encdec.cli.main import main

main()
