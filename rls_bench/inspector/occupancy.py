"""How many blocks of a kernel one SM holds at a time, and which resource stops the next one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one SM of an architecture offers.

    Source: CUDA C++ Programming Guide 13, table "Technical Specifications per Compute Capability".
    """

    warps: int
    blocks: int
    shared_bytes: int
    block_shared_bytes: int
    # Columns of tensor memory (Blackwell's data-centre parts only).
    tensor_memory_columns: int = 0


_KIB = 1024
LIMITS: dict[str, Limits] = {
    "sm_80": Limits(warps=64, blocks=32, shared_bytes=164 * _KIB, block_shared_bytes=163 * _KIB),
    "sm_86": Limits(warps=48, blocks=16, shared_bytes=100 * _KIB, block_shared_bytes=99 * _KIB),
    "sm_89": Limits(warps=48, blocks=24, shared_bytes=100 * _KIB, block_shared_bytes=99 * _KIB),
    "sm_90": Limits(warps=64, blocks=32, shared_bytes=228 * _KIB, block_shared_bytes=227 * _KIB),
    "sm_100": Limits(
        warps=64, blocks=32, shared_bytes=228 * _KIB, block_shared_bytes=227 * _KIB, tensor_memory_columns=512
    ),
    "sm_120": Limits(warps=48, blocks=24, shared_bytes=100 * _KIB, block_shared_bytes=99 * _KIB),
}

REGISTERS_PER_SM = 65536
MAX_REGISTERS = 255
# The same on all of them: registers go to a warp in units of 256, shared memory in units of 128 bytes, and the
# driver keeps 1 KiB of shared memory for itself in each block.
_REGISTER_UNIT = 256
_SHARED_UNIT = 128
_RESERVED_SHARED = 1024
_PARTITIONS = 4


@dataclass(frozen=True)
class Occupancy:
    """Blocks and warps that one SM holds; ``limited_by`` names every resource that stops one block more."""

    blocks: int
    warps: int
    limited_by: str

    @property
    def fits(self) -> bool:
        """Whether one block can be launched at all."""
        return self.blocks > 0


def occupancy(
    arch: str, registers: int, shared_bytes: int, num_warps: int, tensor_memory_columns: int = 0
) -> Occupancy:
    """Occupancy of a block of ``num_warps`` warps with ``registers`` a thread and ``shared_bytes`` of shared memory."""
    limits = LIMITS[arch]
    register_unit_warps = -(-max(registers, 1) * 32 // _REGISTER_UNIT) * _REGISTER_UNIT
    # Each of the four partitions of an SM holds whole warps.
    warps_by_registers = REGISTERS_PER_SM // _PARTITIONS // register_unit_warps * _PARTITIONS
    block_shared = -(-(shared_bytes + _RESERVED_SHARED) // _SHARED_UNIT) * _SHARED_UNIT
    by_resource = {
        "warps": limits.warps // num_warps,
        "blocks": limits.blocks,
        "registers": warps_by_registers // num_warps,
        "shared memory": limits.shared_bytes // block_shared if shared_bytes <= limits.block_shared_bytes else 0,
    }
    if tensor_memory_columns:
        by_resource["tensor memory"] = limits.tensor_memory_columns // tensor_memory_columns
    blocks = min(by_resource.values())
    limited_by = ", ".join(resource for resource, count in by_resource.items() if count == blocks)
    return Occupancy(blocks, blocks * num_warps, limited_by)
