#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/ids.h"
#include "transfer/control_channel.h"
#include "transfer/credit_shares.h"
#include "transfer/messages.h"
#include "transfer/transfer_job.h"

namespace spillway {

// The processes that a node is connected to: who they are, the bulk link to each, what load each gateway was told, and
// how much of the node's room is each one's to promise.
// A bulk link that breaks while its control connection lives is tried again after `bulk_retry`. Loop thread; no I/O.
class PeerTable {
 public:
  struct Config {
    uint32_t peers_max = 0;  // more are not taken
    Role bulk_role{};        // bulk links go to peers of this role that announce an endpoint
    Duration bulk_retry{};
    uint32_t blocks_total = 0;  // of the node
  };
  explicit PeerTable(const Config& config);

  // Returns the bulk job that is due, if any.
  std::optional<ConnectBulk> add(const PeerUp& up);
  std::optional<DisconnectBulk> remove(PeerId peer);

  const Hello* hello(PeerId peer) const;            // nullptr: unknown
  bool is(PeerId peer, Role role) const;            // false: unknown
  std::optional<PeerId> find(BootId boot) const;    // the latest connection of that process
  bool is_process(PeerId peer, BootId boot) const;  // false: unknown, or another process
  std::string name_of(BootId boot) const;           // for people: "a node that is gone" where it is not connected
  bool bulk_ready(PeerId peer) const;

  void on(const BulkReady& ready);
  bool on(const BulkLost& lost, TimePoint now);  // true: the link was ready, so what was under way on it is lost
  void retry_bulk(TimePoint now, std::vector<ConnectBulk>& jobs);
  TimePoint next_deadline() const;

  // Those gateways that were told another load, or none yet, with theirs: `node` and the gateway's share of its
  // blocks_free and of `sequences_free`. They count as told.
  std::vector<std::pair<PeerId, Load>> loads_to_tell(const Load& node, uint32_t sequences_free);
  void on(PeerId from, const Want& want, TimePoint now);
  // A Prefill or Reserve of this gateway came; the next load counts it if it was taken. Then the gateway's want is met.
  void placed(PeerId gateway, TransferId transfer, bool taken);
  void end_wants(TimePoint now);     // those that were not said again in time
  void may_leave(PeerId gateway);    // it said so
  bool all_gateways_let_go() const;  // those that are connected

 private:
  struct Peer {
    Hello hello;
    bool bulk_ready = false;
    TimePoint bulk_retry_at = kNever;
    std::optional<Load> told;
    uint64_t newest_transfer = 0;  // of a gateway
    bool let_go = false;           // a gateway said MayLeave
  };
  bool wants_bulk(const Hello& hello) const;

  Config config_;
  std::map<PeerId, Peer> peers_;
  CreditShares credits_;
};

}  // namespace spillway
