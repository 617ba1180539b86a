// Small messages on a non-blocking stream socket, one call each, without the GIL. Whatever does not go through at once
// is left to the caller: a call tells how far it came, and changes nothing but the socket and the array received into.
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <errno.h>
#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cstdint>

namespace nb = nanobind;

namespace {

constexpr size_t HEADER = 16;
// poll takes a C int, and a deadline may be infinite.
constexpr double LONGEST_WAIT = 86400.0;

struct Header {
    uint64_t step, length;  // little endian, as everything here is
};
static_assert(sizeof(Header) == HEADER, "a header is two words");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little endian");

// The bytes of an array; null where they are not one run, or not to be written to.
struct Bytes {
    char* data = nullptr;
    size_t size = 0;
    Bytes(nb::handle from, int wanted) {
        if (!PyArray_Check(from.ptr())) return;
        auto* array = reinterpret_cast<PyArrayObject*>(from.ptr());
        if ((PyArray_FLAGS(array) & wanted) != wanted) return;
        data = PyArray_BYTES(array);
        size = size_t(PyArray_NBYTES(array));
    }
};

size_t send_now(int fd, const Header& header, const Bytes& payload) {
    iovec parts[2] = {{const_cast<Header*>(&header), HEADER}, {payload.data, payload.size}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 ? 0 : size_t(sent);
}

bool wait_readable(int fd, double deadline) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double left = std::min(deadline - (double(now.tv_sec) + double(now.tv_nsec) * 1e-9), LONGEST_WAIT);
    if (!(left > 0)) return false;
    pollfd wanted{fd, POLLIN, 0};
    return poll(&wanted, 1, int(left * 1000) + 1) > 0;
}

// Bytes of a header and a payload that came by the deadline; fewer than both hold where the stream ended or was
// interrupted, or the header is another one than `expected`.
size_t receive_all(int fd, Header& header, const Header& expected, const Bytes& out, double deadline) {
    size_t got = 0, total = HEADER + out.size;
    while (got < total) {
        iovec parts[2] = {{reinterpret_cast<char*>(&header) + std::min(got, HEADER), HEADER - std::min(got, HEADER)},
                          {out.data + (got > HEADER ? got - HEADER : 0), total - std::max(got, HEADER)}};
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = 2;
        ssize_t came = recvmsg(fd, &message, MSG_DONTWAIT);
        if (came < 0 && errno == EAGAIN && wait_readable(fd, deadline)) continue;
        if (came <= 0) break;
        got += size_t(came);
        if (got >= HEADER && (header.step != expected.step || header.length != expected.length)) break;
    }
    return got;
}

bool same(const Header& a, const Header& b) { return a.step == b.step && a.length == b.length; }

nb::object how_far(size_t sent, size_t got, const Header& header) {
    return nb::make_tuple(sent, got, nb::bytes(reinterpret_cast<const char*>(&header), std::min(got, HEADER)));
}

nb::object send_message(int fd, uint64_t step, nb::handle payload) {
    Bytes data(payload, NPY_ARRAY_C_CONTIGUOUS);
    if (!data.data) return how_far(0, 0, {});
    Header header{step, data.size};
    size_t sent;
    {
        nb::gil_scoped_release release;
        sent = send_now(fd, header, data);
    }
    return sent == HEADER + data.size ? nb::none() : how_far(sent, 0, {});
}

nb::object receive_message(int fd, uint64_t step, nb::handle out, double deadline) {
    Bytes room(out, NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_WRITEABLE);
    if (!room.data) return how_far(0, 0, {});
    Header expected{step, room.size}, header{};
    size_t got;
    {
        nb::gil_scoped_release release;
        got = receive_all(fd, header, expected, room, deadline);
    }
    return got == HEADER + room.size && same(header, expected) ? nb::none() : how_far(0, got, header);
}

nb::object exchange_messages(int fd, uint64_t step, nb::handle payload, nb::handle out, double deadline) {
    Bytes data(payload, NPY_ARRAY_C_CONTIGUOUS), room(out, NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_WRITEABLE);
    if (!data.data || !room.data) return how_far(0, 0, {});
    Header ours{step, data.size}, expected{step, room.size}, header{};
    size_t sent, got = 0;
    {
        nb::gil_scoped_release release;
        sent = send_now(fd, ours, data);
        if (sent == HEADER + data.size) got = receive_all(fd, header, expected, room, deadline);
    }
    return got == HEADER + room.size && same(header, expected) ? nb::none() : how_far(sent, got, header);
}

}  // namespace

NB_MODULE(_socket, module) {
    if (_import_array() < 0) throw nb::python_error();
    module.def("send", &send_message, nb::arg("fd"), nb::arg("step"), nb::arg("payload"));
    module.def("receive", &receive_message, nb::arg("fd"), nb::arg("step"), nb::arg("out"), nb::arg("deadline"));
    module.def("exchange", &exchange_messages, nb::arg("fd"), nb::arg("step"), nb::arg("payload"), nb::arg("out"),
               nb::arg("deadline"));
}
