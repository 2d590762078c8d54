#pragma once

#include <boost/asio/ssl/context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cstddef>
#include <cstdint>

#include "common/ids.h"
#include "common/result.h"
#include "gateway/byte_budget.h"
#include "gateway/gateway_metrics.h"
#include "gateway/http_server.h"
#include "gateway/request_table.h"
#include "gateway/served_model.h"
#include "scheduler/fair_queue.h"

namespace spillway {

class HttpSession;

// What the sessions of one server share. Http thread.
class HttpShared {
 public:
  virtual const HttpConfig& config() const = 0;
  virtual const ServedModel& model() const = 0;
  virtual GatewayMetrics& metrics() = 0;
  virtual boost::asio::thread_pool& parse_pool() = 0;
  virtual GatewayStatus status() const = 0;    // as last published
  virtual GatewayHealth health() const = 0;    // as published, and whether the loop still speaks
  virtual bool draining() const = 0;           // nothing new is taken
  virtual uint32_t max_model_len() const = 0;  // in force now, tokens
  virtual uint32_t connections() const = 0;
  virtual int64_t started() const = 0;             // seconds since 1970
  virtual boost::asio::ssl::context* tls() = 0;    // nullptr: plain HTTP
  virtual unsigned queue_drains_in_s() const = 0;  // as far as the last seconds tell
  virtual ByteBudget& bodies() = 0;                // that clients sent
  virtual ByteBudget& answers() = 0;               // large ones that clients have not taken
  // Calls begin_turn() of the session when the parse pool is to work for it, maybe at once.
  virtual void ask_turn(const QueuedRequest& asked, HttpSession& session) = 0;
  virtual void end_turn(RequestId request) = 0;  // begun or not
  virtual RequestId next_request() = 0;
  // Sends the request to the loop; its events then reach `session`, until its last or cancel(). False: no room, and
  // nothing was sent.
  virtual bool submit(GenerateRequest work, HttpSession& session) = 0;
  virtual void cancel(RequestId request) = 0;      // no more events; ClientGone to the loop
  virtual void stop_found(RequestId request) = 0;  // the end comes soon; StopFound to the loop

 protected:
  ~HttpShared() = default;
};

}  // namespace spillway
