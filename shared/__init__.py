"""What every service speaks: events, ids, errors, settings, bus, object store, stage protocol, telemetry, health."""
