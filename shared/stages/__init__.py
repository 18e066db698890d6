"""The stage protocol: claims, attempts, results and their events, over a ledger, a publisher and a clock."""
