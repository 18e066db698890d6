"""The init step: topics, users, access rules, buckets, policies and notifications, from `deploy/stack.yaml`."""
