#define ISA_NAME "portable"
#define ISA_TABLE portable_table
#define ISA_LANES 1
#include "loops.h"
