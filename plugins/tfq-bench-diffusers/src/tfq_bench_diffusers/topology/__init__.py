"""How a network is built, found by following its tensors through one run."""

from tfq_bench_diffusers.topology.find import diffusers_topology

__all__ = ["diffusers_topology"]
