"""What a run writes for people and for its parent: progress, metrics, curves and the model card."""
