"""Experiment trackers: the figures of a training in TensorBoard, MLflow and Weights & Biases, through their own
clients."""
