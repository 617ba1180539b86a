// A TCP relay that delays what passes, and lets it pass no faster than a link would. Needs no rights.
//
//     relay DELAY_SECONDS BITS_PER_SECOND PORT...
//
// Listens on a port of its own of 127.0.0.1 for each port there, prints its ports in a line, and ends when its standard
// input does. Each direction of each port is one link: what comes in waits until what came before has been sent at the
// link's speed, and arrives the delay after that. Bytes are moved between sockets by the system (`splice`), so that the
// relay takes little time from the processes that it connects. Connections are as fast as the link from their first
// byte: TCP's slow start, which a real connection over a long way has after a pause, is not emulated.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <list>
#include <utility>
#include <vector>

namespace {

// A piece takes 0.2 ms on the link, so that the first byte of a message does not wait for the last of a long one.
constexpr double PIECE_SECONDS = 2e-4;
constexpr size_t LEAST_PIECE = 16 << 10, MOST_PIECE = 256 << 10;
constexpr unsigned HOW = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
constexpr size_t HELD = size_t(64) << 20;  // of one direction: beyond it, the sender waits

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

// One direction of a link, which connections share.
struct Line {
    double delay, seconds_per_byte, free = 0;
    double arrival(size_t bytes) {
        free = std::max(free, now()) + double(bytes) * seconds_per_byte;
        return free + delay;
    }
};

struct Pipe {
    int out = -1, in = -1;
};

std::vector<Pipe> spare;

Pipe take_pipe(size_t bytes) {
    if (!spare.empty()) {
        Pipe pipe = spare.back();
        spare.pop_back();
        return pipe;
    }
    int ends[2];
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0) {
        perror("pipe");
        exit(1);
    }
    fcntl(ends[1], F_SETPIPE_SZ, int(bytes));  // a smaller one does, too
    return {ends[0], ends[1]};
}

struct Piece {
    double due;
    size_t bytes;  // 0: the sender has closed, and there is no pipe
    Pipe pipe;
};

// One direction of one connection.
struct Stream {
    int source, sink;
    Line* line;
    std::deque<Piece> pieces;
    size_t held = 0;
    bool open = true, broken = false;

    bool reads() const { return open && held < HELD; }
    bool ended() const { return !open && pieces.empty(); }
    // Whether bytes that have arrived wait for their receiver, not for the clock.
    bool blocked(double time) const { return !pieces.empty() && pieces.front().due <= time; }

    void take(size_t most) {
        Pipe pipe = take_pipe(most);
        ssize_t got = splice(source, nullptr, pipe.in, nullptr, most, HOW);
        if (got < 0) broken = errno != EAGAIN && errno != EINTR;
        if (got <= 0) spare.push_back(pipe);
        if (got < 0) return;
        open = got > 0;
        held += size_t(got);
        pieces.push_back({line->arrival(size_t(got)), size_t(got), open ? pipe : Pipe{}});
    }

    void give(double time) {
        while (blocked(time)) {
            Piece& piece = pieces.front();
            while (piece.bytes) {
                ssize_t sent = splice(piece.pipe.out, nullptr, sink, nullptr, piece.bytes, HOW);
                if (sent <= 0) {
                    broken = sent == 0 || (errno != EAGAIN && errno != EINTR);
                    return;
                }
                piece.bytes -= size_t(sent);
                held -= size_t(sent);
            }
            if (piece.pipe.in < 0) shutdown(sink, SHUT_WR);
            else spare.push_back(piece.pipe);
            pieces.pop_front();
        }
    }
};

struct Connection {
    Stream there, back;

    bool ended() const { return there.broken || back.broken || (there.ended() && back.ended()); }
    void close_all() {
        close(there.source);
        close(there.sink);
        for (Stream* stream : {&there, &back})
            for (Piece& piece : stream->pieces)
                if (piece.bytes) {
                    close(piece.pipe.in);
                    close(piece.pipe.out);
                }
    }
};

struct Port {
    int listener;
    uint16_t target;
    Line there, back;
};

sockaddr_in local(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

int listen_somewhere(uint16_t& port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&address), size) < 0 || listen(fd, 64) < 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0) {
        perror("listen");
        exit(1);
    }
    port = ntohs(address.sin_port);
    return fd;
}

void make_prompt(int fd) {
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void accept_one(Port& port, std::list<Connection>& connections) {
    int ours = accept(port.listener, nullptr, nullptr), theirs = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = local(port.target);
    if (ours < 0 || connect(theirs, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {
        // Who dials tries again, as where nobody listens.
        if (ours >= 0) close(ours);
        close(theirs);
        return;
    }
    make_prompt(ours);
    make_prompt(theirs);
    connections.push_back({{ours, theirs, &port.there, {}}, {theirs, ours, &port.back, {}}});
}

void run(std::vector<Port>& ports, size_t piece) {
    std::list<Connection> connections;
    std::vector<pollfd> fds;
    for (;;) {
        double time = now(), next = 0;
        fds.assign(1, {STDIN_FILENO, POLLIN, 0});
        for (Port& port : ports) fds.push_back({port.listener, POLLIN, 0});
        for (Connection& one : connections) {
            for (auto [in, out] : {std::pair{&one.there, &one.back}, std::pair{&one.back, &one.there}}) {
                short events = short((in->reads() ? POLLIN : 0) | (out->blocked(time) ? POLLOUT : 0));
                fds.push_back({events ? in->source : -1, events, 0});
                if (!in->pieces.empty() && !in->blocked(time)) {
                    double due = in->pieces.front().due;
                    next = next ? std::min(next, due) : due;
                }
            }
        }
        double left = std::max(0.0, next - time);
        timespec wait{time_t(left), long((left - double(time_t(left))) * 1e9)};
        if (ppoll(fds.data(), fds.size(), next ? &wait : nullptr, nullptr) < 0) continue;
        if (fds[0].revents) return;
        size_t at = 1 + ports.size();
        for (auto one = connections.begin(); one != connections.end();) {
            for (Stream* stream : {&one->there, &one->back})
                if (fds[at++].revents & (POLLIN | POLLHUP | POLLERR) && stream->reads()) stream->take(piece);
            for (Stream* stream : {&one->there, &one->back}) stream->give(now());
            if (one->ended()) {
                one->close_all();
                one = connections.erase(one);
            } else {
                ++one;
            }
        }
        for (size_t i = 0; i < ports.size(); i++)
            if (fds[1 + i].revents) accept_one(ports[i], connections);
    }
}

}  // namespace

int main(int count, char** words) {
    if (count < 4) return fprintf(stderr, "relay DELAY_SECONDS BITS_PER_SECOND PORT...\n"), 2;
    // Timers of 50 microseconds are of the size of the delays of a fast network.
    prctl(PR_SET_TIMERSLACK, 1);
    signal(SIGPIPE, SIG_IGN);
    double delay = atof(words[1]), bandwidth = atof(words[2]);
    size_t piece = std::min(std::max(size_t(bandwidth / 8 * PIECE_SECONDS), LEAST_PIECE), MOST_PIECE);
    std::vector<Port> ports;
    for (int i = 3; i < count; i++) {
        uint16_t port;
        int listener = listen_somewhere(port);
        ports.push_back({listener, uint16_t(atoi(words[i])), {delay, 8 / bandwidth}, {delay, 8 / bandwidth}});
        printf("%d%c", port, i + 1 < count ? ' ' : '\n');
    }
    fflush(stdout);
    run(ports, piece);
    return 0;
}
