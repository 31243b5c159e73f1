"""Weights of others in, ours out, without PyTorch.

In: `hub` fetches, `recognise` tells what a path holds, `torch_file` (with `pickled`),
`safetensors_file` and `flax_file` read it, `nested` finds the set of weights in it,
`beside` reads what files beside it say; `load` is all of these. `names` with `tables`
says which tensor of PyTorch is which of our arrays, in which order, and `exchange` does
it for a whole model. Out: `onnx/` and `torch_model/` write the model itself, `card`
describes what is exported. `convert` and `export` are the modes.
"""
