"""The base model, the adapter on top of it, and what fits into the memory of the device."""
