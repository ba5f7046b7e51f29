"""What a Triton kernel compiles to, read on a machine that has no GPU.

compile     one kernel for one architecture, as a launch would compile it
disassemble registers, stack and instructions of what was compiled
sass        one instruction: its pipe, its target
loops       the loops of a kernel, and which are hot
products    multiply-adds of tensor-core instructions
occupancy   how many blocks an SM holds, and what stops the next one
inspection  one case and what it compiled to, counted
workers     many cases over processes
cases       the shipped kernels as cases
tax         what steering costs in the hot loop
bars        what a shipped kernel must compile to
baseline    inspections in a file, and what grew since
cache       inspections kept on disk
tracking    figures to track from commit to commit
gpus        figures of real GPUs, with those that are unsure marked
floors      a model: the least time that tensor, MUFU, FP32, issue and DRAM limits allow
l2          a model: a set-associative LRU replay of the kernel's tiles
l2_sweep    that model over lengths and GPUs
tables      all of it for a terminal
chart       the replay as an image
"""
