#define ISA_NAME "avx2"
#define ISA_TABLE avx2_table
#define ISA_LANES 4
#include "loops.h"
