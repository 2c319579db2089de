"""`python -m chatd`, the same as the command `chatd`."""

from chatd.cli import main

main()
