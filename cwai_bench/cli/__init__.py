"""The command line: one file per command, each with ``HELP``, ``arguments(parser)`` and ``main(args) -> exit code``.

Only the chosen command's file is imported, and heavy things only where they are used: ``--help`` must be instant.
"""
