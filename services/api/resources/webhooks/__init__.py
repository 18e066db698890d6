"""Where a project wants to be told of its jobs: `/v1/webhook_endpoints`."""
