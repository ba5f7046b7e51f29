"""What a Triton kernel compiles to, read on a machine that has no GPU.

compile     one kernel for one architecture: registers, shared memory, SASS
sass        the hot loop and what it is made of
occupancy   how many blocks an SM holds, and what stops the next one
tax         what steering costs in the hot loop
gpus        figures of real GPUs, with those that are unsure marked
floors      a model: the least time that tensor, MUFU, FP32, issue and DRAM limits allow
l2          a model: a set-associative LRU replay of the kernel's tiles
"""
