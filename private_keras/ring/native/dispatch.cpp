#include "dispatch.h"

// __builtin_cpu_supports also asks whether the operating system saves the wide registers.

std::vector<const Table*> available_tables() {
    std::vector<const Table*> tables;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        tables.push_back(&avx512_table());
    if (avx2) tables.push_back(&avx2_table());
#endif
    tables.push_back(&portable_table());
    return tables;
}

std::vector<NamedGenerator> available_generators() {
    std::vector<NamedGenerator> generators;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("aes") || !__builtin_cpu_supports("ssse3")) return generators;
    bool vaes = __builtin_cpu_supports("vaes") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
    if (vaes && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        generators.push_back({"vaes512", aes_vaes512, expand_key});
    if (vaes) generators.push_back({"vaes", aes_vaes, expand_key});
    generators.push_back({"aesni", aes_ni, expand_key});
#endif
    return generators;
}
