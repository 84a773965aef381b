"""Cameras and microphones: sources, a session that outlives them, what is shown and recorded."""
