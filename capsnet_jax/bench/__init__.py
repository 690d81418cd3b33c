"""Timing this project against its peers, each in a process of its own, block by block in turn.

`workload` says what a worker does, `ours`, `plain_jax` and `pytorch` do it, `worker` and `process` are the two ends of
the pipe between, `interleave` takes the turns, `plan` lists what is measured, `ledger` keeps it, `ratios` compares.
`torchvision`, `nets` and `net_ratios` are subject, plan and comparison for the networks that torchvision has too.
"""
