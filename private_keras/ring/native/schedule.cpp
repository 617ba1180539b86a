#include "schedule.h"

namespace {

// All sets of `count` of the term's wires, in lexicographic order of their places in the term.
void add_subsets(Group& group, const int* term, int length, int from, int count, unsigned chosen, bool* seen) {
    if (count == 0) {
        if (!seen[chosen]) {
            seen[chosen] = true;
            group.product_of[chosen] = u8(group.products);
            group.subset[group.products++] = u8(chosen);
        }
        return;
    }
    for (int i = from; i + count <= length; i++)
        add_subsets(group, term, length, i + 1, count - 1, chosen | 1u << term[i], seen);
}

Group make_group(int size, bool need_equal) {
    Group group;
    group.size = size;
    group.need_equal = need_equal;
    for (int i = 0; i < FAN_IN; i++) group.less_wire[i] = group.equal_wire[i] = -1;
    if (size == 1) return group;  // passes its wires on unopened
    for (int i = size - 1; i >= 1; i--) group.equal_wire[i] = group.wires++;
    for (int i = size - 2; i >= 0; i--) group.less_wire[i] = group.wires++;
    if (need_equal) group.equal_wire[0] = group.wires++;
    bool seen[1 << MAX_WIRES] = {};
    for (int low = size - 2; low >= (need_equal ? -1 : 0); low--) {
        int term[FAN_IN], length = 0;
        for (int i = size - 1; i > low; i--) term[length++] = group.equal_wire[i];
        if (low >= 0) term[length++] = group.less_wire[low];
        for (int count = 2; count <= length; count++) add_subsets(group, term, length, 0, count, 0, seen);
    }
    return group;
}

}  // namespace

int digits_of(int width) { return (width + DIGIT_BITS - 1) / DIGIT_BITS; }

int digit_size(int width, int digit) {
    int left = width - DIGIT_BITS * digit;
    return left < DIGIT_BITS ? left : DIGIT_BITS;
}

int digit_planes(int width) {
    int planes = 0;
    for (int i = 0; i < digits_of(width); i++) planes += (1 << digit_size(width, i)) - 1;
    return planes;
}

int level_count(int width) {
    int levels = 0;
    for (int members = digits_of(width); members > 1; members = (members + FAN_IN - 1) / FAN_IN) levels++;
    return levels;
}

namespace {

Level make_level(int width, int number) {
    int members = digits_of(width);
    for (int i = 0; i < number; i++) members = (members + FAN_IN - 1) / FAN_IN;
    Level level;
    if (members <= 1) return level;
    for (int at = 0; at < members; at += FAN_IN) {
        int size = members - at < FAN_IN ? members - at : FAN_IN;
        Group group = make_group(size, at > 0);
        level.opened += group.wires;
        level.products += group.products;
        level.kept += group.kept();
        level.group[level.groups++] = group;
    }
    return level;
}

// Making a level takes longer than a small step: all of them are made once.
struct Levels {
    Level of[MAX_WIDTH + 1][MAX_LEVELS + 1];
    Levels() {
        for (int width = 1; width <= MAX_WIDTH; width++)
            for (int number = 0; number <= MAX_LEVELS; number++) of[width][number] = make_level(width, number);
    }
};

}  // namespace

const Level& level_of(int width, int number) {
    static const Levels levels;
    return levels.of[width][number];
}

int opened_planes(const Level& next) { return next.groups ? next.opened : 1; }
