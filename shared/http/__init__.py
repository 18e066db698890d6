"""What the HTTP interfaces of all services share: errors, API keys, request ids, body limits, health and metrics."""
