#include "amx_units.h"
#include "isa.h"

namespace rls {

bool amx_multiplies_rightly() { return RLS_ISA::TileUnits::self_test(); }

}  // namespace rls
