# 17. The functions behind the commands: a callback for progress, our errors alone.
from mer import evaluate_model
from mer_runtime import MerError

told = lambda done, of: print(done, "of", of)  # noqa: E731
print(evaluate_model("ia-compact-int8", "cache", progress=told).labels)
try:
    evaluate_model("ia-compact-int8", "clip.mp4")
except MerError as error:
    print("MerError:", error)
