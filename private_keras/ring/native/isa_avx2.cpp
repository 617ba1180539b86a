#define ISA_NAME "avx2"
#define ISA_TABLE avx2_table
#include "loops.h"
