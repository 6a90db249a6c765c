// SPDX-License-Identifier: GPL-2.0-only
#include "dpi/engine.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "dpi/ndpi_api.hpp"
#include "dpi/own_risks.hpp"
#include "util/text.hpp"

namespace l7mark {
namespace {

// Longest part of a text from a packet that is passed on, bytes.
constexpr std::size_t kMaxText = 512;

// A text of nDPI: a pointer that may be null, or an array that need not be terminated. What isn't
// printable ASCII becomes '?': it comes from the network and goes into logs and terminals.
std::string clean(const char* text, std::size_t size) {
  std::string out(text, strnlen(text, std::min(size, kMaxText)));
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) c = '?';
  }
  return out;
}
template <std::size_t N>
std::string text_of(const char (&text)[N]) {
  return clean(text, N);
}
template <class Pointer>
requires std::is_pointer_v<Pointer> std::string text_of(const Pointer& text) {
  return text == nullptr ? std::string() : clean(reinterpret_cast<const char*>(text), kMaxText);
}

template <std::size_t N>
std::string hex_of(const unsigned char (&bytes)[N]) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  if (std::all_of(std::begin(bytes), std::end(bytes), [](unsigned char b) { return b == 0; }))
    return out;
  for (const unsigned char byte : bytes) {
    out += digits[byte >> 4];
    out += digits[byte & 0x0f];
  }
  return out;
}

ndpi::Flow* flow_of(void* flow) {
  return static_cast<ndpi::Flow*>(flow);
}

bool involves(const ndpi::Flow& flow, std::uint16_t protocol) {
  return std::find(std::begin(flow.detected_protocol_stack), std::end(flow.detected_protocol_stack),
                   protocol) != std::end(flow.detected_protocol_stack);
}

// Parsed as TLS, whatever it is called in the end: mail over TLS has names of its own, that replace
// TLS.
bool is_tls(const ndpi::Flow& flow) {
  constexpr std::array<std::uint16_t, 6> names{NDPI_PROTOCOL_TLS,        NDPI_PROTOCOL_QUIC,
                                               NDPI_PROTOCOL_DTLS,       NDPI_PROTOCOL_MAIL_POPS,
                                               NDPI_PROTOCOL_MAIL_IMAPS, NDPI_PROTOCOL_MAIL_SMTPS};
  return std::any_of(names.begin(), names.end(),
                     [&flow](std::uint16_t name) { return involves(flow, name); });
}

// Nothing but that protocol was parsed: of "DNS.BitTorrent" the union holds what DNS wrote.
bool is_only(const ndpi::Flow& flow, std::uint16_t protocol) {
  return involves(flow, protocol) &&
         std::all_of(
             std::begin(flow.detected_protocol_stack), std::end(flow.detected_protocol_stack),
             [protocol](std::uint16_t p) { return p == protocol || p == NDPI_PROTOCOL_UNKNOWN; });
}

bool is_guess_by_header(ndpi_confidence_t value) {
  const Confidence confidence = ndpi::confidence(value);
  return confidence == Confidence::port || confidence == Confidence::address;
}

static_assert(NDPI_MAX_RISK <= kFirstOwnRisk, "nDPI's risks have grown into those of l7mark");

// The risk of flows with packets of one direction only, which later versions have. It is found by
// its name: a number is not the same in all of them.
std::uint64_t find_one_way_risk() {
  for (unsigned id = 1; id < NDPI_MAX_RISK; ++id) {
    const char* name = ndpi_risk2str(static_cast<ndpi_risk_enum>(id));
    if (name != nullptr && std::string_view(name) == "Unidirectional Traffic")
      return std::uint64_t{1} << id;
  }
  return 0;
}

template <class Tls>
void describe_tls(const Tls& tls, FlowDetails& details) {
  if constexpr (requires { tls.advertised_alpns; })
    details.alpn = text_of(tls.advertised_alpns);
  else
    details.alpn = text_of(tls.alpn);
  if constexpr (requires { tls.ja3_client; }) details.ja3_client = text_of(tls.ja3_client);
  if constexpr (requires { tls.ja3_server; }) details.ja3_server = text_of(tls.ja3_server);
  if constexpr (requires { tls.ja4_client; }) details.ja4_client = text_of(tls.ja4_client);
  details.tls_subject = text_of(tls.subjectDN);
  details.tls_issuer = text_of(tls.issuerDN);
  details.tls_version = tls.ssl_version;
  details.tls_cipher_id = tls.server_cipher;
  if (tls.server_cipher != 0)
    details.tls_cipher = ndpi::cipher_name(ndpi_cipher2str, tls.server_cipher);
  details.tls_not_before = static_cast<std::int64_t>(tls.notBefore);
  details.tls_not_after = static_cast<std::int64_t>(tls.notAfter);
}

}  // namespace

EngineFlow::EngineFlow(EngineFlow&& other) noexcept : flow_(std::exchange(other.flow_, nullptr)) {}

EngineFlow& EngineFlow::operator=(EngineFlow&& other) noexcept {
  std::swap(flow_, other.flow_);
  return *this;
}

EngineFlow::~EngineFlow() {
  if (flow_ != nullptr) ndpi_free_flow(flow_of(flow_));
}

struct Engine::Module {
  explicit Module(ndpi::Module* module) : handle(module) {}
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  ~Module() { ndpi_exit_detection_module(handle); }

  ndpi::Module* handle;
  ndpi::Progress progress = ndpi::Progress::unknown;  // of the packet processed last
  std::uint16_t by_port = 0;                          // is_told_by_port(); 0 for none
  std::uint64_t one_way = 0;                          // the risk's bit; 0 where it has none
  // By master and application: printing one costs as much as a packet.
  std::unordered_map<std::uint32_t, std::string> names;
  // In lower case. Numbers differ between the versions of nDPI.
  std::unordered_map<std::string, Detection> by_name;
};

Engine::Engine(std::unique_ptr<Module> module) : module_(std::move(module)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Result<Engine> Engine::make(const EngineOptions& options) {
  // Fields of the flow are read directly: another nDPI than that of the headers would be misread.
  if (ndpi_detection_get_sizeof_ndpi_flow_struct() != sizeof(ndpi::Flow))
    return Error{"start", "nDPI", 0,
                 "the library, " + version() + ", is not the one that l7mark was built with"};
  ndpi::Module* handle = ndpi::init_module(ndpi_init_detection_module);
  if (handle == nullptr) return Error{"start", "nDPI", 0, "out of memory"};
  auto module = std::make_unique<Module>(handle);
  module->one_way = find_one_way_risk();
  ndpi::enable_all_protocols(handle);
  if (!options.protocols_file.empty() &&
      ndpi_load_protocols_file(handle, options.protocols_file.c_str()) != 0)
    return Error{"read custom protocols", options.protocols_file, 0,
                 "nDPI refused the file; lines are tcp:PORT@NAME or host:\"NAME\"@NAME"};
  if (!ndpi::finalize(handle, ndpi_finalize_initialization))
    return Error{"start", "nDPI", 0, "its initialization failed"};
  Engine engine(std::move(module));
  for (const ApplicationName& item : engine.applications())
    engine.module_->by_name.try_emplace(to_lower(item.name), Detection{item.id, 0, item.category});
  engine.module_->by_port = engine.application("TargusDataspeed").application;
  return engine;
}

EngineFlow Engine::new_flow() const {
  return EngineFlow(ndpi_calloc(1, sizeof(ndpi::Flow)));
}

namespace {
Detection to_detection(const ndpi_protocol& protocol) {
  const auto& pair = ndpi::protocol_pair(protocol);
  return {pair.app_protocol, pair.master_protocol, static_cast<std::uint16_t>(protocol.category),
          ndpi::protocol_by_address(protocol)};
}
}  // namespace

Detection Engine::process(EngineFlow& flow, const std::uint8_t* packet, std::size_t length,
                          std::uint64_t time_ms) {
  const auto limited = static_cast<unsigned short>(std::min<std::size_t>(length, 0xffff));
  const ndpi_protocol protocol = ndpi::process(ndpi_detection_process_packet, module_->handle,
                                               flow_of(flow.flow_), packet, limited, time_ms);
  module_->progress = ndpi::progress(protocol);
  return to_detection(protocol);
}

bool Engine::finds(std::uint8_t protocol, const std::uint8_t* packet, std::size_t length) {
  const u_int8_t* transport = nullptr;
  u_int16_t transport_length = 0;
  u_int8_t found = 0;
  const auto limited = static_cast<u_int16_t>(std::min<std::size_t>(length, 0xffff));
  return ndpi_detection_get_l4(packet, limited, &transport, &transport_length, &found, 0) == 0 &&
         found == protocol;
}

bool Engine::wants_more(const EngineFlow& flow) const {
  return ndpi::extra_dissection_possible(module_->handle, flow_of(flow.flow_), module_->progress);
}

Detection Engine::give_up(EngineFlow& flow) const {
  return to_detection(ndpi::give_up(ndpi_detection_giveup, module_->handle, flow_of(flow.flow_)));
}

bool Engine::is_guess(const EngineFlow& flow) const {
  return is_guess_by_header(flow_of(flow.flow_)->confidence);
}

bool Engine::is_told_by_port(const Detection& detection) const {
  return detection.application != 0 && detection.application == module_->by_port;
}

void Engine::describe(const EngineFlow& handle, const Detection& detection, FlowFacts& facts,
                      bool both_ways) const {
  ndpi::Flow& flow = *flow_of(handle.flow_);
  facts.application = detection.application != 0 ? detection.application : detection.master;
  facts.master = detection.master != 0 ? detection.master : detection.application;
  facts.category = detection.category;
  facts.confidence = detection.known() ? ndpi::confidence(flow.confidence) : Confidence::none;
  facts.risks = flow.risk;
  // nDPI was not given every packet: the counters know better which directions there were.
  if (both_ways) facts.risks &= ~module_->one_way;
  // ndpiReader asks this of each URL too: some versions look for injections here only.
  if (flow.http.url != nullptr)
    facts.risks |= ndpi::url_risk(ndpi_validate_url, module_->handle, &flow, flow.http.url);
  u_int16_t client_score = 0;
  u_int16_t server_score = 0;
  facts.risk_score =
      facts.risks == 0 ? 0U : ndpi_risk2score(facts.risks, &client_score, &server_score);
  facts.hostname = text_of(flow.host_server_name);
  for (char& c : facts.hostname)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));

  FlowDetails& details = facts.details;
  details.address_owner =
      detection.by_address == 0 ? std::string() : application_name(detection.by_address);
  details.user_agent = text_of(flow.http.user_agent);
  details.http_url = text_of(flow.http.url);
  // What follows is in a union, or says nothing of a flow that was never parsed as what it is
  // guessed to be.
  if (is_guess_by_header(flow.confidence)) return;
  if (is_tls(flow))
    describe_tls(ndpi::tls_of(flow), details);
  else if (is_only(flow, NDPI_PROTOCOL_BITTORRENT))
    details.bittorrent_hash = hex_of(flow.protos.bittorrent.hash);
  if (involves(flow, NDPI_PROTOCOL_DNS)) details.dns_query = facts.hostname;
}

std::string Engine::name(const Detection& detection) const {
  const auto [place, fresh] =
      module_->names.try_emplace(std::uint32_t{detection.master} << 16 | detection.application);
  if (!fresh) return place->second;
  std::array<char, 128> buffer{};
  ndpi::protocol_name(ndpi_protocol2name, module_->handle, detection.master, detection.application,
                      buffer.data(), buffer.size());
  place->second = buffer.data();
  return place->second;
}

std::string Engine::application_name(std::uint16_t application) const {
  const char* name = ndpi_get_proto_name(module_->handle, application);
  return name == nullptr ? std::to_string(application) : name;
}

std::string Engine::category_name(std::uint16_t category) const {
  if (category >= NDPI_PROTOCOL_NUM_CATEGORIES) return std::to_string(category);
  const char* name =
      ndpi_category_get_name(module_->handle, static_cast<ndpi_protocol_category_t>(category));
  return name == nullptr ? std::to_string(category) : name;
}

unsigned Engine::fully_encrypted_risk() {
  return ndpi::fully_encrypted_risk<ndpi_risk_enum>(kFullyEncrypted.bit);
}

std::uint32_t Engine::score_of(RiskSeverity severity) {
  switch (severity) {
    case RiskSeverity::low:
      return NDPI_SCORE_RISK_LOW;
    case RiskSeverity::medium:
      return NDPI_SCORE_RISK_MEDIUM;
    case RiskSeverity::high:
      return NDPI_SCORE_RISK_HIGH;
    case RiskSeverity::severe:
      return NDPI_SCORE_RISK_SEVERE;
  }
  return 0;
}

void Engine::add_risk(FlowFacts& facts, unsigned risk) const {
  const std::uint64_t bit = std::uint64_t{1} << risk;
  if ((facts.risks & bit) != 0) return;
  facts.risks |= bit;
  facts.risk_score += score_of(risk_severity(risk));
}

std::string Engine::risk_name(unsigned risk) const {
  if (const OwnRisk* own = own_risk(risk)) return std::string(own->name);
  const char* name = ndpi_risk2str(static_cast<ndpi_risk_enum>(risk));
  return name == nullptr ? std::to_string(risk) : name;
}

RiskSeverity Engine::risk_severity(unsigned risk) const {
  if (const OwnRisk* own = own_risk(risk)) return own->severity;
  const auto* info = ndpi_risk2severity(static_cast<ndpi_risk_enum>(risk));
  if (info == nullptr) return RiskSeverity::low;
  switch (info->severity) {
    case NDPI_RISK_LOW:
      return RiskSeverity::low;
    case NDPI_RISK_MEDIUM:
      return RiskSeverity::medium;
    case NDPI_RISK_HIGH:
      return RiskSeverity::high;
    default:  // later versions have steps above "severe"
      return RiskSeverity::severe;
  }
}

std::string Engine::breed_name(std::uint16_t application) const {
  const char* name = ndpi::breed_name(ndpi_get_proto_breed_name, module_->handle,
                                      ndpi_get_proto_breed(module_->handle, application));
  return name == nullptr ? std::string() : name;
}

std::uint16_t Engine::match_host(std::string_view host) const {
  if (host.empty() || host.size() > 255) return 0;
  std::string name = to_lower(host);  // nDPI takes it as mutable
  ndpi_protocol_match_result match{};
  const int found = ndpi_match_string_subprotocol(module_->handle, name.data(),
                                                  static_cast<u_int>(name.size()), &match);
  return found > 0 && found <= 0xffff ? static_cast<std::uint16_t>(found) : std::uint16_t{0};
}

Detection Engine::application(std::string_view name) const {
  const auto& known = module_->by_name;
  const auto place = known.find(to_lower(name));
  return place == known.end() ? Detection() : place->second;
}

std::vector<ApplicationName> Engine::applications() const {
  std::vector<ApplicationName> out;
  const unsigned count = ndpi::number_of_protocols(module_->handle);
  for (unsigned id = 0; id < count && id <= 0xffff; ++id) {
    const char* name = ndpi_get_proto_name(module_->handle, static_cast<std::uint16_t>(id));
    if (name == nullptr || *name == '\0') continue;
    ndpi_protocol protocol{};
    ndpi::protocol_pair(protocol).app_protocol = static_cast<std::uint16_t>(id);
    out.push_back({static_cast<std::uint16_t>(id), name,
                   static_cast<std::uint16_t>(ndpi_get_proto_category(module_->handle, protocol))});
  }
  return out;
}

std::vector<CategoryName> Engine::categories() const {
  std::vector<CategoryName> out;
  for (unsigned id = 0; id < NDPI_PROTOCOL_NUM_CATEGORIES; ++id) {
    const std::string name = category_name(static_cast<std::uint16_t>(id));
    if (name.empty()) continue;  // a number that nDPI leaves free
    out.push_back({static_cast<std::uint16_t>(id), name});
  }
  return out;
}

std::vector<RiskName> Engine::risks() const {
  std::vector<RiskName> out;
  for (unsigned id = 1; id < NDPI_MAX_RISK; ++id)
    out.push_back({static_cast<std::uint16_t>(id), risk_name(id), risk_severity(id)});
  for (const OwnRisk& own : kOwnRisks) {
    if (own.bit == kFullyEncrypted.bit && fully_encrypted_risk() != own.bit) continue;
    out.push_back({static_cast<std::uint16_t>(own.bit), std::string(own.name), own.severity});
  }
  return out;
}

void Engine::fill(Catalog& catalog) const {
  for (const auto& item : applications())
    catalog.add_application(item.id, item.name, item.category);
  for (const auto& item : categories()) catalog.add_category(item.id, item.name);
  for (const auto& item : risks()) catalog.add_risk(item.id, item.name, item.severity);
}

std::string Engine::cipher_name(std::uint16_t cipher) {
  return ndpi::cipher_name(ndpi_cipher2str, cipher);
}

std::string Engine::version() {
  return ndpi_revision();
}

}  // namespace l7mark
