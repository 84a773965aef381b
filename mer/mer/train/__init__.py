"""Training: the encoder on photos, the fusion on clips; runs that can be resumed."""
