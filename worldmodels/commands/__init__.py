"""The subcommands of `worldmodels`: each a frozen dataclass of options with an `execute` method.

The dataclass is the command line: its fields are the flags, and their docstrings the help.
"""
