// Which instruction sets and generators this machine has.
#pragma once
#include <string>
#include <vector>

#include "aes.h"
#include "table.h"

// Best first.
std::vector<const Table*> available_tables();

struct NamedGenerator {
    const char* name;
    Generator run;
    Expand expand;
};
// Best first; empty where the processor has no AES instructions.
std::vector<NamedGenerator> available_generators();
