"""``python -m server`` is the same as ``roomcast``."""

from server.cli import main

main()
