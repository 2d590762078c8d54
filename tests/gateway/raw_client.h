#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "common/unique_fd.h"

namespace spillway {

struct RawReply {
  unsigned status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
};

// A socket that sends what a test writes, malformed or not, and reads replies. Every wait ends after 10 seconds.
class RawClient {
 public:
  explicit RawClient(uint16_t port, int receive_bytes = 0) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_bytes > 0) ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    const timeval limit{10, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }

  bool connected() const { return connected_; }
  // False once the server has closed.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  bool post(std::string_view path, std::string_view body, std::string_view headers = "") {
    return send("POST " + std::string(path) + " HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n" +
                std::string(headers) + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
                std::string(body));
  }
  bool get(std::string_view path, std::string_view headers = "") {
    return send("GET " + std::string(path) + " HTTP/1.1\r\nHost: test\r\n" + std::string(headers) + "\r\n");
  }

  // Everything up to and including `mark`; nothing when the connection ends before it.
  std::optional<std::string> read_until(std::string_view mark) {
    size_t at;
    while ((at = buffer_.find(mark)) == std::string::npos)
      if (!receive()) return std::nullopt;
    return take(at + mark.size());
  }
  std::optional<std::string> read_bytes(size_t count) {
    while (buffer_.size() < count)
      if (!receive()) return std::nullopt;
    return take(count);
  }
  // One whole reply; nothing when the connection ends inside it.
  std::optional<RawReply> read_reply() {
    RawReply reply;
    if (!read_head(reply)) return std::nullopt;
    if (reply.headers["transfer-encoding"] == "chunked") {
      while (auto chunk = read_chunk()) {
        if (chunk->empty()) return reply;
        reply.body += *chunk;
      }
      return std::nullopt;
    }
    const auto body = read_bytes(std::stoul("0" + reply.headers["content-length"]));
    if (!body) return std::nullopt;
    reply.body = *body;
    return reply;
  }
  bool read_head(RawReply& reply) {
    const auto head = read_until("\r\n\r\n");
    if (!head || !head->starts_with("HTTP/1.")) return false;
    reply.status = static_cast<unsigned>(std::stoul(head->substr(9, 3)));
    for (size_t at = head->find("\r\n") + 2; at + 2 < head->size();) {
      const size_t end = head->find("\r\n", at), colon = head->find(": ", at);
      std::string name = head->substr(at, colon - at);
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      reply.headers[name] = head->substr(colon + 2, end - colon - 2);
      at = end + 2;
    }
    return true;
  }
  std::optional<std::string> read_chunk() {  // empty: the last
    const auto size = read_until("\r\n");
    if (!size) return std::nullopt;
    const auto chunk = read_bytes(std::stoul(*size, nullptr, 16) + 2);
    if (!chunk) return std::nullopt;
    return chunk->substr(0, chunk->size() - 2);
  }
  // The server closed, and sent nothing more before.
  bool at_end() { return buffer_.empty() && !receive() && closed_; }
  bool was_reset() const { return reset_; }  // as the last read found
  std::string read_rest() {
    while (receive()) continue;
    return take(buffer_.size());
  }

  void half_close() { ::shutdown(fd_.get(), SHUT_WR); }
  void close() { fd_ = UniqueFd(); }
  void reset() {
    const linger now{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close();
  }

 private:
  bool receive() {
    char bytes[16384];
    const ssize_t count = ::recv(fd_.get(), bytes, sizeof bytes, 0);
    reset_ = count < 0 && errno == ECONNRESET;
    closed_ = count == 0 || reset_;
    if (count <= 0) return false;
    buffer_.append(bytes, static_cast<size_t>(count));
    return true;
  }
  std::string take(size_t count) {
    std::string bytes = buffer_.substr(0, count);
    buffer_.erase(0, count);
    return bytes;
  }

  UniqueFd fd_;
  bool connected_ = false, closed_ = false, reset_ = false;
  std::string buffer_;
};

}  // namespace spillway
