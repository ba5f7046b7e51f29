#include "part.h"
#include "decode.h"

RLS_PART(const rls_call* call) { return rls::RLS_ISA::decode<rls::RLS_ISA::PartUnits, RLS_DTYPE>(*call); }
