"""Sweeps: a search for the settings that train the best model. Each trial is an ordinary job."""
