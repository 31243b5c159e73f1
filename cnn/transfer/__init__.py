"""Fine-tuning: strict merge, freezing, rates by layer, and the proof of it all."""

from cnn.transfer.options import TransferOptions

__all__ = ["TransferOptions"]
