"""The commands, one file per group of ideas."""
