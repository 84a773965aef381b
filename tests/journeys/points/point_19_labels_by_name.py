# 19. A model whose labels are in another order does as well as before: labels go by name.
from dataclasses import replace

from mer import evaluate_model, load_checkpoint, save_checkpoint, shipped_checkpoint

model, spec = (known := load_checkpoint(shipped_checkpoint("ia-compact"))).model, known.spec
for values in model.classifier_1[0].parameters():
    values.data = values.data.flip(0)
save_checkpoint("turned.safetensors", model, replace(spec, labels=spec.labels[::-1]))
for name in ("ia-compact", "turned.safetensors"):
    print(f"loss {evaluate_model(name, 'cache').scores.loss:.4f}")
