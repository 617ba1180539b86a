#define ISA_NAME "avx512"
#define ISA_TABLE avx512_table
#include "loops.h"
