"""The ``fewstep`` command."""
