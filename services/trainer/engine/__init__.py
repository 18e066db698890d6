"""The training process, from plan to adapter: files in, files and messages out; no bus, no store, no settings."""
