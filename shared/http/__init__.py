"""The HTTP face that all services share: errors, API keys, request ids, body limits, health and metrics."""
