"""PyTorch's weights in and out, without PyTorch.

`torch_file` (with `pickled`) and `safetensors_file` read tensors by name; `names` with
`tables` says which of them is which of our arrays, `layouts` turns one into the other;
`exchange` does it for a whole model, `convert` and `export` are the modes; `onnx/`
writes ONNX files.
"""
