"""The version of all that ships together; ``mer_runtime.__version__``."""

__version__ = "0.1.0"
