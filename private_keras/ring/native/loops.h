// All inner loops of one instruction set and the table of them. An isa_*.cpp defines ISA_NAME, ISA_TABLE and ISA_LANES
// (words in a vector), includes this, and is compiled with that instruction set's flags. Everything sits in an
// anonymous namespace, and only headers that emit no code are included: a function shared by name could be linked from
// the wrong instruction set.
#if ISA_LANES == 4
#include <immintrin.h>
#endif
#include <utility>

#include "scratch.h"
#include "table.h"

namespace {
#include "lanes.h"
#include "loops_tile.h"
#include "loops_pack.h"
#include "loops_matmul.h"
#include "loops_conv.h"
#include "loops_planes.h"
#include "loops_source.h"
#include "loops_digits.h"
#include "loops_tree.h"
#include "loops_words.h"
#include "loops_steps.h"
#include "loops_functions.h"
}  // namespace

const Table& ISA_TABLE() {
    static constexpr Table table = {
        ISA_NAME, TILE_ROWS, TILE_COLUMNS, matmul, conv, to_planes, from_planes, digits_deal, digits_compare, tree_deal,
        tree_combine, add_words, subtract_words, mask, multiply, multiply_deal, rescale, rescale_deal, gate,
        gate_deal, gate_rescaled, gate_rescaled_deal, bit_share, bit_deal, piecewise, piecewise_deal,
        exp2_share, exp2_deal, exp2_public, multiply_shift,
    };
    return table;
}
