"""Make model_files.npz: python tests/golden/make_model_files.py DIR, under PyTorch.

DIR holds what `python -m tests.golden.model_files DIR` writes. For each model: the
logits of its `model.py`, and the SHA-256 of that file as `NAME/sha256`.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from hashed import make_uniform

found = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    source = (folder / "model.py").read_bytes()
    module = {}
    exec(compile(source, "model.py", "exec"), module)
    size = module["SIZE"][0]
    pixels = (make_uniform("pixels", (2, size, size, 3)) * 256).astype("uint8")
    model = module["load"](str(folder / "model.safetensors"))
    with torch.inference_mode():
        logits = model(module["scale"](torch.from_numpy(pixels)))
    found[folder.name] = logits.numpy()
    found[f"{folder.name}/sha256"] = np.array(hashlib.sha256(source).hexdigest())
np.savez_compressed(Path(__file__).with_name("model_files.npz"), **found)
