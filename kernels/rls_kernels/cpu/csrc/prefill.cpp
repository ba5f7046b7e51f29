#include "part.h"
#include "prefill.h"

RLS_PART(const rls_call* call) { return rls::RLS_ISA::prefill<rls::RLS_ISA::PartUnits, RLS_DTYPE>(*call); }
