// Words of a message or of a stream, read piece by piece.

// Room for the words of one block, and for the one before them in a stream: blocks of AES make two words.
constexpr size_t SOURCE_ROOM = BLOCK_ELEMENTS + 8;

// `count` words from word `at` on: where they stand, or made in `room` (count + 1 words).
inline const u64* read(const Source& source, size_t at, size_t count, u64* room) {
    if (source.words) return source.words + at;
    u64 word = source.first + at;
    size_t odd = size_t(word & 1);
    source.make(*source.key, source.nonce, word >> 1, count + odd, room);
    return room + odd;
}

// One block's rows of a message of `planes` planes, `planes` rows from word `at` of the source on. A short last block is
// widened to whole rows. `room` takes planes * BLOCK_WORDS + 2 words.
inline const u64* read_rows(const Source& source, size_t at, const Block& block, int planes, u64* room) {
    const u64* from = read(source, at, size_t(planes) * block.words, room);
    if (block.words == BLOCK_WORDS) return from;
    if (from == room + 1)
        for (size_t i = 0; i < size_t(planes) * block.words; i++) room[i] = room[i + 1];
    if (from == room + 1) from = room;
    // From the end, since rows only move up.
    for (int i = planes - 1; i >= 0; i--)
        for (size_t w = BLOCK_WORDS; w-- > 0;)
            room[size_t(i) * BLOCK_WORDS + w] = w < block.words ? from[size_t(i) * block.words + w] : 0;
    return room;
}
