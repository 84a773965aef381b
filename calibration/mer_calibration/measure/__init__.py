"""What a calibration measures on clips: ranges, roundings, corrections, the noise that is left."""
