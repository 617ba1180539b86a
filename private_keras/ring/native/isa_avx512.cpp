#define ISA_NAME "avx512"
#define ISA_TABLE avx512_table
#define ISA_LANES 8
#include "loops.h"
