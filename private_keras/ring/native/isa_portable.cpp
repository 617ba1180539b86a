#define ISA_NAME "portable"
#define ISA_TABLE portable_table
#include "loops.h"
