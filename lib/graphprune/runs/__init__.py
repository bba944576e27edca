"""Runs: where and how a computation happens, and what it leaves: seeds, device, folders, the store of results, jobs."""
