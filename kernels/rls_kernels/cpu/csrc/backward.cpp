#include "part.h"
#include "backward.h"

RLS_PART(const rls_gradient* gradient) { return rls::RLS_ISA::backward<RLS_DTYPE>(*gradient); }
