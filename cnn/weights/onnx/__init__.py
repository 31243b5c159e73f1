"""A trained model as an ONNX file, made from the jaxpr of its evaluation.

`trace` writes the jaxpr down and walks through it, `primitives` says which nodes of
ONNX each operation of it becomes, `graph` holds them and knows which axis is which,
`fuse` joins biases to their layers, `file` makes the file, `compare` checks logits.
"""
