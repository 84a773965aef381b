"""The training side's commands: thin click layers over the public functions of ``mer``."""
