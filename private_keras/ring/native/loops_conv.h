// Convolution as a matrix product whose rows are patches, packed panel by panel: no patch matrix is ever stored.

// Pixels so many words apart are packed a tile at a time; those further apart are faster one after the other.
constexpr ptrdiff_t NEAR = 4;

struct Patches {
    const Convolution& s;
    size_t group_channels;
    const u64 *x, *less;  // first channel of the group, and what twice is taken from it, if anything

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

    // Where a run of the packed order goes on through the last window axis, because its input does so in memory.
    bool rows_run() const {
        return s.groups == 1 && s.dilation[2] == 1 && s.x_channel == 1 && s.x_space[2] == ptrdiff_t(group_channels);
    }

    void pack(size_t first, int count, size_t p, size_t k, u64* to) const {
        Pixel pixels[TILE_ROWS];
        for (int i = 0; i < count; i++) pixels[i] = pixel(first + size_t(i));
        if (less) pack_pixels<true>(pixels, count, p, k, to);
        else pack_pixels<false>(pixels, count, p, k, to);
    }

  private:
    template <bool TWO>
    void pack_pixels(const Pixel* pixels, int count, size_t p, size_t k, u64* to) const {
        if (LINES_FILL_VECTORS && count == TILE_ROWS && s.x_channel == 1 && group_channels >= 2 * LANES)
            return pack_lines<TWO>(pixels, p, k, to);
        // Neighbouring words (one channel): a tile at a time. Pixels further apart are faster one after the other.
        bool wide = rows_run();
        bool even = s.stride[2] * s.x_space[2] <= NEAR && count == TILE_ROWS && evenly_spaced(pixels);
        size_t run_length = wide ? group_channels * size_t(s.window[2]) : group_channels;
        ptrdiff_t tap[3];
        for (size_t end = p + k; p < end;) {
            size_t start = p % run_length, run = least(run_length - start, end - p);
            tap_of(p / run_length * (wide ? size_t(s.window[2]) : 1), tap);
            Matrix inside = even ? wide ? inside_row(pixels, tap, ptrdiff_t(start), ptrdiff_t(run))
                                        : inside_tap(pixels, tap, start)
                                 : Matrix{};
            if (inside.data) PlainRows{inside}.pack(0, TILE_ROWS, 0, run, to);
            else for (int i = 0; i < count; i++) {
                if (wide) pack_row<TWO>(pixels[i], tap, ptrdiff_t(start), ptrdiff_t(run), to + i);
                else pack_tap<TWO>(pixels[i], tap, start, run, to + i);
            }
            to += run * TILE_ROWS;
            p += run;
        }
    }
    const u64* twice(const u64* from) const { return less ? less + (from - x) : nullptr; }
    // A tile of pixels with many channels each, tap by tap, side by side. A pixel in the padding is a line of zeros.
    template <bool TWO>
    void pack_lines(const Pixel* pixels, size_t p, size_t k, u64* to) const {
        static constexpr u64 zeros[K_BLOCK] = {};
        ptrdiff_t tap[3];
        Lines lines;
        for (size_t end = p + k; p < end;) {
            size_t start = p % group_channels, run = least(least(group_channels - start, end - p), K_BLOCK);
            tap_of(p / group_channels, tap);
            for (int i = 0; i < TILE_ROWS; i++) {
                const u64* at = under(pixels[i], tap);
                lines.data[i] = at ? at + start : zeros;
                if constexpr (TWO) lines.less[i] = at ? twice(at) + start : zeros;
            }
            interleave<TWO>(lines, run, to, TILE_ROWS);
            to += run * TILE_ROWS;
            p += run;
        }
    }
    // Whether a tile's pixels lie in one line of the output, so that their inputs are equally far apart.
    bool evenly_spaced(const Pixel* pixels) const {
        const Pixel &first = pixels[0], &last = pixels[TILE_ROWS - 1];
        return first.image == last.image && first.at[0] == last.at[0] && first.at[1] == last.at[1];
    }
    // The same words as pack_tap and pack_row take, as a matrix; without data where some are in the padding.
    Matrix inside_tap(const Pixel* pixels, const ptrdiff_t tap[3], size_t channel) const {
        const u64 *from = under(pixels[0], tap), *last = under(pixels[TILE_ROWS - 1], tap);
        if (!from || !last) return {};
        from += ptrdiff_t(channel) * s.x_channel;
        return {from, s.stride[2] * s.x_space[2], s.x_channel, twice(from)};
    }
    Matrix inside_row(const Pixel* pixels, const ptrdiff_t tap[3], ptrdiff_t start, ptrdiff_t run) const {
        ptrdiff_t channels = ptrdiff_t(group_channels);
        const u64* from = line(pixels[0], tap);
        ptrdiff_t low = pixels[0].at[2] * channels + start, high = pixels[TILE_ROWS - 1].at[2] * channels + start + run;
        if (!from || low < 0 || high > s.space[2] * channels) return {};
        return {from + low, s.stride[2] * channels, 1, twice(from + low)};
    }
    // Start of the input's line under one tap, or null in the padding.
    const u64* line(const Pixel& pixel, const ptrdiff_t tap[3]) const {
        const u64* from = pixel.image;
        for (int axis = 0; axis < 2; axis++) {
            ptrdiff_t position = pixel.at[axis] + tap[axis] * s.dilation[axis];
            if (position < 0 || position >= s.space[axis]) return nullptr;
            from += position * s.x_space[axis];
        }
        return from;
    }
    template <bool TWO>
    void pack_tap(const Pixel& pixel, const ptrdiff_t tap[3], size_t channel, size_t run, u64* to) const {
        const u64* from = under(pixel, tap);
        if (!from) {
            for (size_t q = 0; q < run; q++) to[q * TILE_ROWS] = 0;
            return;
        }
        from += ptrdiff_t(channel) * s.x_channel;
        const u64* taken = twice(from);
        for (size_t q = 0; q < run; q++) to[q * TILE_ROWS] = word_at<TWO>(from, taken, ptrdiff_t(q) * s.x_channel);
    }
    // Words start .. start+run-1 of the window's last axis and channels, zero where they hang over the input's edge.
    template <bool TWO>
    void pack_row(const Pixel& pixel, const ptrdiff_t tap[3], ptrdiff_t start, ptrdiff_t run, u64* to) const {
        const u64* from = line(pixel, tap);
        ptrdiff_t channels = ptrdiff_t(group_channels), at = pixel.at[2] * channels + start;
        ptrdiff_t low = at < 0 ? -at : 0, high = s.space[2] * channels - at;
        high = !from || high < 0 ? 0 : high < run ? high : run;
        const u64* taken = from ? twice(from) : nullptr;
        ptrdiff_t q = 0;
        for (; q < (low < run ? low : run); q++) to[q * TILE_ROWS] = 0;
        for (; q < high; q++) to[q * TILE_ROWS] = word_at<TWO>(from, taken, at + q);
        for (; q < run; q++) to[q * TILE_ROWS] = 0;
    }
};

// Few pixels: their patches are packed whole, and weights are read where they are.
inline void few_pixels(size_t m, size_t n, size_t k, const Patches& patches, size_t first, Matrix w, u64* y,
                       ptrdiff_t y_row, Into how) {
    u64* panel = scratch(0, TILE_ROWS * k);
    for (size_t i = 0; i < m; i += TILE_ROWS) {
        size_t count = least(TILE_ROWS, m - i);
        patches.pack(first + i, int(count), 0, k, panel);
        few(count, n, k, {panel, 1, TILE_ROWS}, w, y + ptrdiff_t(i) * y_row, y_row, how);
    }
}

// Input and weights of the taps of one pixel that lie inside the input.
struct Tap {
    const u64 *x, *w;
};

// The sum over taps of x times w, lane by lane, into y[0 .. N * LANES).
template <int N>
inline void depthwise_run(const Tap* taps, size_t count, size_t channel, u64* y, Into how) {
    Sum sums[N] = {};
    for (size_t t = 0; t < count; t++) {
#pragma GCC unroll 4
        for (int v = 0; v < N; v++)
            multiply_add(sums[v], load(taps[t].x + channel + v * LANES), factor(taps[t].w + channel + v * LANES));
    }
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) {
        u64* to = y + channel + v * LANES;
        store(to, joined(to, total(sums[v]), how));
    }
}

// One channel and one filter per group: vectors run over channels, which must be contiguous. Without `less`.
inline void depthwise(const Convolution& s, size_t first, size_t last) {
    Patches patches{s, 1, s.x, nullptr};
    size_t window = size_t(s.window[0] * s.window[1] * s.window[2]), whole = s.channels / LANES * LANES;
    Tap* taps = reinterpret_cast<Tap*>(scratch(0, 2 * window));
    for (size_t row = first; row < last; row++) {
        Patches::Pixel pixel = patches.pixel(row);
        size_t count = 0;
        const u64* w = s.w;
        ptrdiff_t tap[3];
        for (tap[0] = 0; tap[0] < s.window[0]; tap[0]++)
            for (tap[1] = 0; tap[1] < s.window[1]; tap[1]++)
                for (tap[2] = 0; tap[2] < s.window[2]; tap[2]++, w += s.channels)
                    if (const u64* x = patches.under(pixel, tap)) taps[count++] = {x, w};
        u64* y = s.y + row * s.channels;
        size_t channel = 0;
        for (; channel + 4 * LANES <= whole; channel += 4 * LANES) depthwise_run<4>(taps, count, channel, y, s.how);
        for (; channel < whole; channel += LANES) depthwise_run<1>(taps, count, channel, y, s.how);
        for (; channel < s.channels; channel++) {
            u64 sum = 0;
            for (size_t t = 0; t < count; t++) sum += taps[t].x[channel] * taps[t].w[channel];
            put(y + channel, sum, s.how);
        }
    }
}

inline void conv(const Convolution& s, size_t first, size_t last) {
    if (s.groups > 1 && s.groups == s.channels && s.filters == s.channels && s.x_channel == 1 && !s.x_less && !s.w_less)
        return depthwise(s, first, last);
    size_t group_channels = s.channels / s.groups, group_filters = s.filters / s.groups;
    size_t k = size_t(s.window[0] * s.window[1] * s.window[2]) * group_channels;
    for (size_t group = 0; group < s.groups; group++) {
        ptrdiff_t channel = ptrdiff_t(group * group_channels) * s.x_channel;
        Patches patches{s, group_channels, s.x + channel, s.x_less ? s.x_less + channel : nullptr};
        Matrix w{s.w + group * group_filters, ptrdiff_t(s.filters), 1, s.w_less ? s.w_less + group * group_filters : nullptr};
        u64* y = s.y + first * s.filters + group * group_filters;
        if (few_rows(last - first))
            few_pixels(last - first, group_filters, k, patches, first, w, y, ptrdiff_t(s.filters), s.how);
        else
            blocked(last - first, group_filters, k, patches, first, w, y, ptrdiff_t(s.filters), s.how);
    }
}
