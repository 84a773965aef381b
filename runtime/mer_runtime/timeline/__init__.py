"""A whole clip's answers over time: read as they are asked for, summed up, written to a file."""

from mer_runtime.timeline.files import KINDS, write_timeline
from mer_runtime.timeline.reading import Timeline
from mer_runtime.timeline.summary import Share, Summary

__all__ = ["KINDS", "Share", "Summary", "Timeline", "write_timeline"]
