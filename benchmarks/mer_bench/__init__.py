"""``mer-bench``: latency, memory and accuracy of bundles on the device that it runs on.

A worker process is timed from its start, so this imports nothing; ``bench.command`` has the
command.
"""
