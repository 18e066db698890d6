"""In-memory and scripted stand-ins for what services talk to: the store, the bus, vLLM, HTTP servers, a clock."""
