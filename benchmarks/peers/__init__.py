"""HMI beside what a user would otherwise take: same shapes, same dtype, same tenants, in alternating rounds of one run.

Every engine runs in a process of its own, so that no setting of one helps or hurts another. The driver is
`python -m benchmarks.peers`; an engine that is not installed is reported as unavailable, with the reason.
"""
