// The comparison tree of tree.py as small integer tables: wires are bits of a mask, in the order of the message.
#pragma once
#include "words.h"

constexpr int MAX_WIDTH = 62;
constexpr int DIGIT_BITS = 4;
constexpr int FAN_IN = 4;
constexpr int MAX_DIGITS = (MAX_WIDTH + DIGIT_BITS - 1) / DIGIT_BITS;
constexpr int MAX_LEVELS = 2;
constexpr int MAX_WIRES = 2 * FAN_IN - 1;
constexpr int MAX_PRODUCTS = 22;

// One node: wires are e_(s-1) .. e_1, g_(s-2) .. g_0, then e_0 if its own `equal` is needed.
struct Group {
    int size = 0;
    bool need_equal = false;
    int wires = 0;
    int less_wire[FAN_IN] = {};   // message position of g_i, -1 for the top one, which stays local
    int equal_wire[FAN_IN] = {};  // message position of e_i, -1 where it is not opened
    int products = 0;
    u8 subset[MAX_PRODUCTS] = {};          // wires of each dealt product
    u8 product_of[1 << MAX_WIRES] = {};    // where a set of wires stands in `subset`
    int kept() const { return size == 1 && need_equal ? 2 : 1; }
    bool opens() const { return size > 1; }
};

// One level of the tree, its groups from the least significant up; no groups after the last level.
struct Level {
    int groups = 0;
    Group group[FAN_IN];
    int opened = 0, products = 0, kept = 0;  // planes
};

int digits_of(int width);
int digit_size(int width, int digit);
int digit_planes(int width);
int level_count(int width);
// Level `level` (from 0); for level == level_count(width), a level without groups.
const Level& level_of(int width, int level);
// Planes that leave a step whose results are the members of `next`: its wires, or one plane after the last level.
int opened_planes(const Level& next);
