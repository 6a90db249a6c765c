// SPDX-License-Identifier: GPL-2.0-only
// The parts of selftests/robust/run: each is a process in a network namespace of its lab.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "attack.hpp"
#include "honest.hpp"
#include "plan.hpp"
#include "rate.hpp"
#include "sender.hpp"
#include "server.hpp"
#include "util/log.hpp"
#include "util/result.hpp"
#include "witness.hpp"

namespace l7mark::robust {
namespace {

volatile bool ending = false;

void list() {
  for (const AttackFacts& attack : attacks())
    std::printf("%s\t%s%s\t%s\n", attack.name, attack.lan ? "lan " : "", attack.wan ? "wan" : "",
                attack.text);
}

struct SendOptions {
  std::string attack, side, device, gateway;
  double rate = 20000, seconds = 5;
};

Status send_attack(const SendOptions& options, const AttackOptions& made) {
  const AttackFacts* facts = find_attack(options.attack);
  if (facts == nullptr) return Error{"find", options.attack, 0, "no such attack"};
  auto sender = Sender::open(options.device, options.gateway);
  if (!sender) return sender.error();
  std::signal(SIGTERM, [](int) { ending = true; });
  const auto attack = facts->make(made, options.side == "lan" ? Side::lan : Side::wan);
  const auto sent = sender->run(*attack, options.rate, options.seconds, &ending);
  if (!sent) return sent.error();
  std::printf("%llu\n", static_cast<unsigned long long>(sent->frames));
  return success();
}

void add_plan(CLI::App* app, PlanOptions& plan) {
  app->add_option("--flows", plan.old_flows, "Flows that are there before the attack");
  app->add_option("--banned", plan.old_banned, "Likewise, of the class that is dropped");
  app->add_option("--fresh", plan.fresh_flows, "Flows that begin during the attack");
  app->add_option("--first-port", plan.first_port, "The client's port of the first flow");
}

int run(int argc, char** argv) {
  CLI::App app{"What selftests/robust/run sends, serves and counts with"};
  app.require_subcommand(1);
  PlanOptions plan;
  HonestOptions honest;
  SendOptions sending;
  RateOptions rates;
  std::uint32_t buckets = 8192;
  std::vector<std::string> devices;
  std::string pin, device, instance, probe_of;

  app.add_subcommand("list", "The attacks: name, sides, description");
  app.add_subcommand("serve", "Be the servers of the honest flows");
  auto* be_client = app.add_subcommand("honest", "Be the honest client");
  add_plan(be_client, plan);
  be_client->add_option("--fresh-rate", honest.fresh_rate, "Flows begun a second");
  be_client->add_option("--pin", honest.pin, "The witness's counts")->required();
  be_client->add_option("--lan0", honest.lan0, "Ethernet address of the gateway")->required();
  be_client->add_option("--wan0", honest.wan0, "The same on the server's side")->required();
  be_client->add_option("--server-netns", honest.server_netns, "The server's")->required();
  be_client->add_option("--attack", probe_of, "Probe what is dropped as this attack has it");
  auto* send = app.add_subcommand("send", "Be an attacker");
  add_plan(send, plan);
  send->add_option("attack", sending.attack, "Its name")->required();
  send->add_option("--side", sending.side)->required()->check(CLI::IsMember({"lan", "wan"}));
  send->add_option("--device", sending.device, "Interface to send on")->required();
  send->add_option("--gateway", sending.gateway, "Ethernet address of the next hop")->required();
  send->add_option("--rate", sending.rate, "Packets a second; 0: all that is possible");
  send->add_option("--seconds", sending.seconds, "For how long");
  send->add_option("--buckets", buckets, "Of the table of candidates");
  auto* rate = app.add_subcommand("rate", "Measure the gateway against the bare one");
  add_plan(rate, plan);
  rate->add_option("attack", rates.attack, "Its name")->required();
  rate->add_option("--buckets", buckets, "Of the table of candidates");
  rate->add_option("--rounds", rates.rounds, "Measurements of each");
  rate->add_option("--seconds", rates.seconds, "Of a measurement");
  rate->add_option("--client", rates.client)->required();
  rate->add_option("--server", rates.server)->required();
  rate->add_option("--gateway", rates.gateway)->required();
  rate->add_option("--bare", rates.bare)->required();
  rate->add_option("--lan0", rates.lan0)->required();
  rate->add_option("--wan0", rates.wan0)->required();
  rate->add_option("--bare-lan0", rates.bare_lan0)->required();
  rate->add_option("--bare-wan0", rates.bare_wan0)->required();
  auto* witness = app.add_subcommand("witness", "Put the witness on the gateway");
  witness->add_option("--pin", pin, "Where its counts go")->required();
  witness->add_option("devices", devices)->required();
  auto* empty = app.add_subcommand("empty", "Put an empty program on the bare gateway");
  empty->add_option("--instance", instance)->required();
  empty->add_option("device", device)->required();
  auto* take = app.add_subcommand("take-empty", "Take it off again");
  take->add_option("--instance", instance)->required();
  take->add_option("device", device)->required();
  CLI11_PARSE(app, argc, argv);

  set_log_level(LogLevel::warning);
  const std::string command = app.get_subcommands().front()->get_name();
  const AttackOptions made{make_plan(plan), buckets};
  Status status = success();
  if (command == "list") {
    list();
  } else if (command == "serve") {
    status = serve();
  } else if (command == "honest") {
    const AttackFacts* facts = find_attack(probe_of);
    if (facts != nullptr) honest.probe = facts->probe;
    honest.plan = plan;
    status = be_honest(honest);
  } else if (command == "send") {
    status = send_attack(sending, made);
  } else if (command == "rate") {
    rates.made = made;
    status = measure_rates(rates);
  } else if (command == "witness") {
    status = put_witness(devices, pin);
  } else if (command == "empty") {
    status = put_empty(device, instance);
  } else {
    status = take_empty(device, instance);
  }
  if (!status) std::fprintf(stderr, "robust: %s\n", status.error().message().c_str());
  return status ? 0 : 1;
}

}  // namespace
}  // namespace l7mark::robust

int main(int argc, char** argv) {
  return l7mark::robust::run(argc, argv);
}
