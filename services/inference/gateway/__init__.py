"""gateway: the HTTP routes. Generations go to vLLM, the control plane to the api; deployments are made by hand here."""
