// The 4-ary prefix tree over digits: wires are opened under masks, the helper deals the products of masks.

constexpr int MAX_OPENED = FAN_IN * MAX_WIRES;
constexpr int MAX_TREE_PRODUCTS = FAN_IN * MAX_PRODUCTS;
constexpr int MAX_KEPT = 2 * FAN_IN;

// Shares of `less` and `equal` of every member of a level, for one block.
struct Members {
    alignas(64) u64 less[MAX_DIGITS][BLOCK_WORDS], equal[MAX_DIGITS][BLOCK_WORDS];
};

inline void xor_row(const u64* a, const u64* b, u64* to) {
    for (int q = 0; q < BLOCK_VECTORS; q++) put_row(to, 0, q, row_at(a, 0, q) ^ row_at(b, 0, q));
}
inline void copy_row(const u64* from, u64* to) {
    for (int q = 0; q < BLOCK_VECTORS; q++) put_row(to, 0, q, row_at(from, 0, q));
}

// Comparison `number` of `count` in a message of `planes` planes for each: where its rows of a block begin.
inline size_t rows_of(const Block& block, size_t count, size_t number, int planes) {
    return (block.first * count + number * block.words) * size_t(planes);
}

// The messages that a step ends with: the members' opened wires under masks, and what stays.
inline void open_members(const Members& members, const Level& next, const Block& block, size_t count, size_t number,
                         const Source& masks, u64* opened, u64* kept) {
    alignas(64) u64 mask_room[MAX_OPENED * BLOCK_WORDS + 8], opened_room[MAX_OPENED * BLOCK_WORDS];
    alignas(64) u64 kept_room[MAX_KEPT * BLOCK_WORDS];
    int planes = opened_planes(next);
    size_t start = rows_of(block, count, number, planes);
    const u64* mask = read_rows(masks, start, block, planes, mask_room);
    opened += start;
    u64* to = room_for_rows(opened, block, opened_room);
    if (next.groups == 0) {
        xor_row(members.less[0], mask, to);
        return put_rows(opened, block, planes, opened_room);
    }
    kept += rows_of(block, count, number, next.kept);
    u64* keep = room_for_rows(kept, block, kept_room);
    int member = 0;
    for (int g = 0; g < next.groups; g++) {
        const Group& group = next.group[g];
        copy_row(members.less[member + group.size - 1], keep);
        if (group.kept() == 2) copy_row(members.equal[member], keep + BLOCK_WORDS);
        keep += size_t(group.kept()) * BLOCK_WORDS;
        for (int i = 0; i < group.size; i++) {
            size_t less = size_t(group.less_wire[i]) * BLOCK_WORDS, equal = size_t(group.equal_wire[i]) * BLOCK_WORDS;
            if (group.less_wire[i] >= 0) xor_row(members.less[member + i], mask + less, to + less);
            if (group.equal_wire[i] >= 0) xor_row(members.equal[member + i], mask + equal, to + equal);
        }
        member += group.size;
        mask += size_t(group.wires) * BLOCK_WORDS;
        to += size_t(group.wires) * BLOCK_WORDS;
    }
    put_rows(opened, block, planes, opened_room);
    put_rows(kept, block, next.kept, kept_room);
}

inline void digits_compare(const u64* m, size_t n, const Comparison& how, const u64* offsets, const Source& share,
                           const Source& masks, u64* opened, u64* kept, size_t first, size_t last) {
    alignas(64) u64 elements[BLOCK_ELEMENTS], shifted[BLOCK_ELEMENTS], bits[64 * BLOCK_WORDS];
    alignas(64) u64 share_room[MAX_DIGIT_PLANES * BLOCK_WORDS + 8];
    Members members;
    const Level& next = level_of(how.width, 0);
    int planes = digit_planes(how.width), digits = digits_of(how.width);
    u64 one = how.party == 0 ? ~u64(0) : 0;
    bool add_top = how.top && how.party == 0;
    for (size_t index = first; index < last; index++) {
        Block block = block_at(index, n);
        const u64* from = whole_elements(m, block, elements);
        const u64* dealt = read_rows(share, block.first * size_t(planes), block, planes, share_room);
        for (size_t t = 0; t < how.count; t++) {
            for (size_t i = 0; i < block.elements; i++) shifted[i] = from[i] + offsets[t];
            for (size_t i = block.elements; i < BLOCK_ELEMENTS; i++) shifted[i] = 0;
            block_to_rows(shifted, how.width + add_top, how.low, bits);
            const u64* hot = dealt;
            for (int i = 0; i < digits; i++) {
                const u64* digit = bits + size_t(DIGIT_BITS * i) * BLOCK_WORDS;
                int size = digit_size(how.width, i);
                if (size == 4) compare_digit<4>(digit, hot, one, members.less[i], members.equal[i]);
                else if (size == 3) compare_digit<3>(digit, hot, one, members.less[i], members.equal[i]);
                else if (size == 2) compare_digit<2>(digit, hot, one, members.less[i], members.equal[i]);
                else compare_digit<1>(digit, hot, one, members.less[i], members.equal[i]);
                hot += ((size_t(1) << size) - 1) * BLOCK_WORDS;
            }
            // The top `less` wire enters the result as it is, through all levels, and the public bit with it.
            u64* top = members.less[digits - 1];
            if (add_top) xor_row(top, bits + size_t(how.width) * BLOCK_WORDS, top);
            open_members(members, next, block, how.count, t, masks, opened, kept);
        }
    }
}

inline void tree_deal(const Source& masks0, const Source& masks1, size_t n, size_t count, const Level& level,
                      const Source& share, u64* out, size_t first, size_t last) {
    alignas(64) u64 mask_room[MAX_OPENED * BLOCK_WORDS + 8], other_room[MAX_OPENED * BLOCK_WORDS + 8];
    alignas(64) u64 masks[MAX_OPENED * BLOCK_WORDS], share_room[MAX_TREE_PRODUCTS * BLOCK_WORDS + 8];
    alignas(64) u64 out_room[MAX_TREE_PRODUCTS * BLOCK_WORDS], plain[MAX_PRODUCTS][BLOCK_WORDS];
    for (size_t index = first * count; index < last * count; index++) {
        Block block = block_at(index / count, n);
        size_t start = rows_of(block, count, index % count, level.opened);
        const u64* half = read_rows(masks0, start, block, level.opened, mask_room);
        const u64* other = read_rows(masks1, start, block, level.opened, other_room);
        for (int i = 0; i < level.opened; i++)
            xor_row(half + size_t(i) * BLOCK_WORDS, other + size_t(i) * BLOCK_WORDS, masks + size_t(i) * BLOCK_WORDS);
        const u64* mask = masks;
        start = rows_of(block, count, index % count, level.products);
        const u64* from = read_rows(share, start, block, level.products, share_room);
        u64* to = room_for_rows(out + start, block, out_room);
        for (int g = 0; g < level.groups; g++) {
            const Group& group = level.group[g];
            for (int p = 0; p < group.products; p++) {
                // A set without one of its wires is a wire or an earlier product.
                unsigned set = group.subset[p], rest = set & (set - 1);
                const u64* wire = mask + size_t(__builtin_ctz(set)) * BLOCK_WORDS;
                const u64* remaining = rest & (rest - 1) ? plain[group.product_of[rest]]
                                                         : mask + size_t(__builtin_ctz(rest)) * BLOCK_WORDS;
                for (int q = 0; q < BLOCK_VECTORS; q++) {
                    Bits product = row_at(wire, 0, q) & row_at(remaining, 0, q);
                    put_row(plain[p], 0, q, product);
                    put_row(to, p, q, product ^ row_at(from, p, q));
                }
            }
            mask += size_t(group.wires) * BLOCK_WORDS;
            from += size_t(group.products) * BLOCK_WORDS;
            to += size_t(group.products) * BLOCK_WORDS;
        }
        put_rows(out + start, block, level.products, out_room);
    }
}

// to (^)= share of the AND of COUNT opened wires: the multilinear polynomial in the opened values whose coefficients
// are the dealt products, folded one wire at a time.
template <int COUNT>
void add_conjunction(const int* term, const Group& group, const u64* hat, const u64* mask, const u64* products, u64 one,
                     bool fresh, u64* to) {
    const u64* dealt[1 << COUNT] = {};
    for (unsigned s = 1; s < 1u << COUNT; s++) {
        unsigned set = 0;
        for (int i = 0; i < COUNT; i++)
            if (s >> i & 1) set |= 1u << term[i];
        dealt[s] = set & (set - 1) ? products + size_t(group.product_of[set]) * BLOCK_WORDS
                                   : mask + size_t(__builtin_ctz(set)) * BLOCK_WORDS;
    }
    for (int q = 0; q < BLOCK_VECTORS; q++) {
        Bits value[1 << COUNT];
        value[0] = one - Bits{};
#pragma GCC unroll 16
        for (int s = 1; s < 1 << COUNT; s++) value[s] = row_at(dealt[s], 0, q);
#pragma GCC unroll 4
        for (int i = COUNT - 1; i >= 0; i--) {
            Bits wire = row_at(hat, term[i], q);
#pragma GCC unroll 8
            for (int s = 0; s < 1 << i; s++) value[s] = value[s + (1 << i)] ^ (value[s] & wire);
        }
        put_row(to, 0, q, fresh ? value[0] : value[0] ^ row_at(to, 0, q));
    }
}

inline void add_term(int low, const Group& group, const u64* hat, const u64* mask, const u64* products, u64 one, u64* to) {
    int term[FAN_IN], count = 0;
    for (int i = group.size - 1; i > low; i--) term[count++] = group.equal_wire[i];
    if (low >= 0) term[count++] = group.less_wire[low];
    bool fresh = low < 0;
    if (count == 2) add_conjunction<2>(term, group, hat, mask, products, one, fresh, to);
    else if (count == 3) add_conjunction<3>(term, group, hat, mask, products, one, fresh, to);
    else add_conjunction<4>(term, group, hat, mask, products, one, fresh, to);
}

inline void tree_combine(const Opened& opened, const u64* kept, const Source& products, const Source& masks, size_t n,
                         const Comparison& how, const Level& level, const Level& next, const Source& next_masks,
                         u64* next_opened, u64* next_kept, size_t first, size_t last) {
    alignas(64) u64 hats[MAX_OPENED * BLOCK_WORDS], hat_room[MAX_OPENED * BLOCK_WORDS + 8];
    alignas(64) u64 other_room[MAX_OPENED * BLOCK_WORDS + 8], mask_room[MAX_OPENED * BLOCK_WORDS + 8];
    alignas(64) u64 product_room[MAX_TREE_PRODUCTS * BLOCK_WORDS + 8], kept_room[MAX_KEPT * BLOCK_WORDS + 8];
    Members members;
    u64 one = how.party == 0 ? ~u64(0) : 0;
    for (size_t index = first * how.count; index < last * how.count; index++) {
        Block block = block_at(index / how.count, n);
        size_t number = index % how.count;
        size_t start = rows_of(block, how.count, number, level.opened);
        const u64* mine = read_rows(Source{opened.mine}, start, block, level.opened, hat_room);
        const u64* theirs = read_rows(Source{opened.theirs}, start, block, level.opened, other_room);
        for (int i = 0; i < level.opened; i++)
            xor_row(mine + size_t(i) * BLOCK_WORDS, theirs + size_t(i) * BLOCK_WORDS, hats + size_t(i) * BLOCK_WORDS);
        const u64* hat = hats;
        const u64* mask = read_rows(masks, start, block, level.opened, mask_room);
        start = rows_of(block, how.count, number, level.products);
        const u64* product = read_rows(products, start, block, level.products, product_room);
        start = rows_of(block, how.count, number, level.kept);
        const u64* keep = read_rows(Source{kept}, start, block, level.kept, kept_room);
        for (int g = 0; g < level.groups; g++) {
            const Group& group = level.group[g];
            copy_row(keep, members.less[g]);
            if (group.kept() == 2) copy_row(keep + BLOCK_WORDS, members.equal[g]);
            keep += size_t(group.kept()) * BLOCK_WORDS;
            if (!group.opens()) continue;
            for (int low = group.size - 2; low >= 0; low--)
                add_term(low, group, hat, mask, product, one, members.less[g]);
            if (group.need_equal) add_term(-1, group, hat, mask, product, one, members.equal[g]);
            hat += size_t(group.wires) * BLOCK_WORDS;
            mask += size_t(group.wires) * BLOCK_WORDS;
            product += size_t(group.products) * BLOCK_WORDS;
        }
        open_members(members, next, block, how.count, number, next_masks, next_opened, next_kept);
    }
}
