"""Faster formulations of convolution and its gradients that only CPU takes."""
