"""The code that services share: events, ids, errors, settings, bus, object store, stage protocol, telemetry and
health."""
