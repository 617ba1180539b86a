// Convolution as a matrix product whose rows are patches, packed panel by panel: no patch matrix is ever stored.

struct Patches {
    const Convolution& s;
    size_t group_channels;
    const u64* x;  // first channel of the group

    // Output pixel -> batch and three space positions.
    struct Pixel {
        const u64* image;
        ptrdiff_t at[3];
    };
    Pixel pixel(size_t row) const {
        Pixel pixel;
        for (int axis = 2; axis >= 0; axis--) {
            size_t extent = size_t(s.out[axis]);
            pixel.at[axis] = ptrdiff_t(row % extent) * s.stride[axis] - s.pad[axis];
            row /= extent;
        }
        pixel.image = x + ptrdiff_t(row) * s.x_batch;
        return pixel;
    }
    // The pixel's input under one tap, or null in the padding.
    const u64* under(const Pixel& pixel, const ptrdiff_t tap[3]) const {
        const u64* at = pixel.image;
        for (int axis = 0; axis < 3; axis++) {
            ptrdiff_t position = pixel.at[axis] + tap[axis] * s.dilation[axis];
            if (position < 0 || position >= s.space[axis]) return nullptr;
            at += position * s.x_space[axis];
        }
        return at;
    }
    void tap_of(size_t number, ptrdiff_t tap[3]) const {
        for (int axis = 2; axis >= 0; axis--) {
            tap[axis] = ptrdiff_t(number % size_t(s.window[axis]));
            number /= size_t(s.window[axis]);
        }
    }

    void pack(size_t first, int count, size_t p, size_t k, u64* to) const {
        Pixel pixels[TILE_ROWS];
        for (int i = 0; i < count; i++) pixels[i] = pixel(first + size_t(i));
        for (size_t end = p + k; p < end;) {
            size_t channel = p % group_channels, run = least(group_channels - channel, end - p);
            ptrdiff_t tap[3];
            tap_of(p / group_channels, tap);
            for (int i = 0; i < count; i++) {
                const u64* from = under(pixels[i], tap);
                u64* into = to + i;
                if (!from) {
                    for (size_t q = 0; q < run; q++) into[q * TILE_ROWS] = 0;
                    continue;
                }
                from += ptrdiff_t(channel) * s.x_channel;
                for (size_t q = 0; q < run; q++) into[q * TILE_ROWS] = from[ptrdiff_t(q) * s.x_channel];
            }
            to += run * TILE_ROWS;
            p += run;
        }
    }
};

// One channel and one filter per group: vectors run over channels, which must be contiguous.
inline void depthwise(const Convolution& s, size_t first, size_t last) {
    Patches patches{s, 1, s.x};
    size_t taps = size_t(s.window[0] * s.window[1] * s.window[2]), whole = s.channels / LANES * LANES;
    for (size_t row = first; row < last; row++) {
        Patches::Pixel pixel = patches.pixel(row);
        u64* y = s.y + row * s.channels;
        for (size_t c0 = 0; c0 < s.channels; c0 += 4 * LANES) {
            size_t vectors = c0 < whole ? least(4, (whole - c0) / LANES) : 0;
            Sum sums[4] = {};
            u64 rest[4 * LANES] = {};
            size_t from = c0 + vectors * LANES, to = least(s.channels, c0 + 4 * LANES);
            for (size_t t = 0; t < taps; t++) {
                ptrdiff_t tap[3];
                patches.tap_of(t, tap);
                const u64 *x = patches.under(pixel, tap), *w = s.w + t * s.channels;
                if (!x) continue;
                if (vectors == 4) {
#pragma GCC unroll 4
                    for (int v = 0; v < 4; v++) multiply_add(sums[v], load(x + c0 + v * LANES), factor(w + c0 + v * LANES));
                    continue;
                }
                for (size_t v = 0; v < vectors; v++)
                    multiply_add(sums[v], load(x + c0 + v * LANES), factor(w + c0 + v * LANES));
                for (size_t c = from; c < to; c++) rest[c - from] += x[c] * w[c];
            }
            for (size_t v = 0; v < vectors; v++) store(y + c0 + v * LANES, total(sums[v]));
            for (size_t c = from; c < to; c++) y[c] = rest[c - from];
        }
    }
}

inline void conv(const Convolution& s, size_t first, size_t last) {
    if (s.groups > 1 && s.groups == s.channels && s.filters == s.channels && s.x_channel == 1)
        return depthwise(s, first, last);
    size_t group_channels = s.channels / s.groups, group_filters = s.filters / s.groups;
    size_t k = size_t(s.window[0] * s.window[1] * s.window[2]) * group_channels;
    for (size_t group = 0; group < s.groups; group++) {
        Patches patches{s, group_channels, s.x + ptrdiff_t(group * group_channels) * s.x_channel};
        Matrix w{s.w + group * group_filters, ptrdiff_t(s.filters), 1};
        blocked(last - first, group_filters, k, patches, first, w, s.y + first * s.filters + group * group_filters,
                ptrdiff_t(s.filters));
    }
}
