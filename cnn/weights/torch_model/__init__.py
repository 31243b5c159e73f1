"""A model as a file of PyTorch, which needs nothing of this project: `model.py`.

It is written from the graph of the model's evaluation (see `onnx.trace`), a line an
operation (`lines`), and takes its numbers from the state dict that is exported beside
it (`views`). `file` puts the file together and proves it.
"""
