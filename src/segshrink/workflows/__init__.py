"""The verbs as functions: what the command line can do, in as many lines of Python."""
