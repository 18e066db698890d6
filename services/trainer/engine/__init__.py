"""The training process, from plan to adapter. It reads files and writes files and messages; it knows no bus, store or
settings."""
