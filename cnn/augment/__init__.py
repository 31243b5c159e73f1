"""Augmentation in jnp: key first, batch in, batch out; `pipeline` has the order."""
