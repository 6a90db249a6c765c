// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/control.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "util/fd.hpp"

namespace l7mark {
namespace {

using Json = nlohmann::ordered_json;

ControlServer::Lines count_to(int last) {
  return [last, part = 0]() mutable -> std::optional<Json> {
    if (part == last) return std::nullopt;
    return Json({{"part", ++part}});
  };
}

class Control : public testing::Test {
 protected:
  Control() {
    char pattern[] = "/tmp/l7mark-control.XXXXXX";
    directory_ = mkdtemp(pattern);
    path_ = directory_ + "/test.sock";
  }
  ~Control() override { std::filesystem::remove_all(directory_); }

  [[nodiscard]] Fd dial() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
      fd.reset();
    return fd;
  }
  static void say(const Fd& fd, const std::string& text) {
    ASSERT_EQ(send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // What the server has sent, once it has done what there is to do.
  static std::string hear(ControlServer& server, const Fd& fd) {
    std::string out;
    char bytes[65536];
    for (int i = 0; i < 50; ++i) {
      server.process();
      const ssize_t got = recv(fd.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
      if (got > 0) out.append(bytes, static_cast<std::size_t>(got));
      if (got == 0) break;
    }
    return out;
  }

  std::string directory_;
  std::string path_;
};

TEST_F(Control, AnswersLinesThenTheLast) {
  auto server = ControlServer::listen(path_);
  ASSERT_TRUE(server);
  server->set_handler([](const std::string& command, const Json& arguments) {
    return ControlServer::Reply{Json({{"command", command}, {"arguments", arguments}}),
                                count_to(1)};
  });
  const Fd fd = dial();
  ASSERT_TRUE(fd);
  say(fd, "{\"command\":\"status\",\"arguments\":{\"a\":1}}\n");
  EXPECT_EQ(hear(*server, fd),
            "{\"part\":1}\n{\"command\":\"status\",\"arguments\":{\"a\":1},\"ok\":true}\n");
}

TEST_F(Control, MalformedRequestsGetAnError) {
  auto server = ControlServer::listen(path_);
  ASSERT_TRUE(server);
  server->set_handler([](const std::string&, const Json&) { return ControlServer::Reply{}; });
  const Fd fd = dial();
  for (const char* request : {"nonsense\n", "[]\n", "{\"command\":5}\n", "\n"}) {
    say(fd, request);
    EXPECT_NE(hear(*server, fd).find("\"ok\":false"), std::string::npos) << request;
  }
  const std::string endless(70'000, 'x');
  say(fd, endless);
  EXPECT_NE(hear(*server, fd).find("too long"), std::string::npos);
}

TEST_F(Control, AHandlerThatThrowsGivesAnError) {
  auto server = ControlServer::listen(path_);
  ASSERT_TRUE(server);
  server->set_handler([](const std::string& command, const Json& arguments) {
    if (command == "now") (void)arguments.at("missing");
    return ControlServer::Reply{{}, [] { return Json::object().at("missing"); }};
  });
  const Fd fd = dial();
  for (const char* request : {"{\"command\":\"now\"}\n", "{\"command\":\"later\"}\n"}) {
    say(fd, request);
    const std::string heard = hear(*server, fd);
    EXPECT_EQ(heard.find("{\"ok\":false"), 0U) << heard;
    EXPECT_EQ(heard.find('\n'), heard.size() - 1) << heard;
  }
}

TEST_F(Control, ALongReplyIsMadeAsItIsRead) {
  constexpr int kLines = 20'000;
  auto server = ControlServer::listen(path_);
  ASSERT_TRUE(server);
  int made = 0;
  server->set_handler([&made](const std::string& command, const Json&) {
    ControlServer::Reply reply;
    if (command == "long")
      reply.lines = [&made]() -> std::optional<Json> {
        if (made == kLines) return std::nullopt;
        return Json({{"line", ++made}, {"x", std::string(1000, 'y')}});
      };
    return reply;
  });
  const Fd slow = dial();
  say(slow, "{\"command\":\"long\"}\n");
  for (int i = 0; i < 1000; ++i) server->process();
  EXPECT_GT(made, 0);
  EXPECT_LT(made, kLines / 10);
  const Fd other = dial();
  say(other, "{\"command\":\"short\"}\n");
  EXPECT_EQ(hear(*server, other), "{\"ok\":true}\n");

  std::string heard;
  std::size_t before = 1;
  while (heard.size() != before) {
    before = heard.size();
    heard += hear(*server, slow);
  }
  EXPECT_EQ(std::count(heard.begin(), heard.end(), '\n'), kLines + 1);
  EXPECT_EQ(heard.find("{\"ok\":true}\n"), heard.size() - std::strlen("{\"ok\":true}\n"));
}

TEST_F(Control, RequestsAreAnsweredInOrderAndAfterHalfAClose) {
  auto server = ControlServer::listen(path_);
  ASSERT_TRUE(server);
  server->set_handler([](const std::string& command, const Json&) {
    return ControlServer::Reply{Json({{"command", command}}), count_to(2)};
  });
  const Fd fd = dial();
  say(fd, "{\"command\":\"a\"}\n{\"command\":\"b\"}\n");
  ASSERT_EQ(shutdown(fd.get(), SHUT_WR), 0);
  EXPECT_EQ(hear(*server, fd),
            "{\"part\":1}\n{\"part\":2}\n{\"command\":\"a\",\"ok\":true}\n"
            "{\"part\":1}\n{\"part\":2}\n{\"command\":\"b\",\"ok\":true}\n");
  char byte = 0;
  EXPECT_EQ(recv(fd.get(), &byte, 1, MSG_DONTWAIT), 0) << "not closed";
}

TEST_F(Control, ConnectionsAreCounted) {
  auto server = ControlServer::listen(path_);
  ASSERT_TRUE(server);
  server->set_handler([](const std::string&, const Json&) { return ControlServer::Reply{}; });
  std::vector<Fd> held;
  for (int i = 0; i < 64; ++i) {
    held.push_back(dial());
    server->process();
  }
  EXPECT_NE(hear(*server, dial()).find("too many"), std::string::npos);
  held.pop_back();
  server->process();
  const Fd fd = dial();
  say(fd, "{\"command\":\"x\"}\n");
  EXPECT_EQ(hear(*server, fd), "{\"ok\":true}\n");
}

TEST_F(Control, ASocketWithoutADaemonIsTakenOver) {
  {
    const Fd dead(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
    ASSERT_EQ(bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  ASSERT_TRUE(std::filesystem::exists(path_));
  EXPECT_TRUE(ControlServer::listen(path_));
}

TEST_F(Control, OnlyTheOwnerMayConnectAndTheSocketGoes) {
  {
    auto server = ControlServer::listen(path_);
    ASSERT_TRUE(server);
    const auto mode = std::filesystem::status(path_).permissions();
    EXPECT_EQ(mode & std::filesystem::perms::mask,
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    const auto second = ControlServer::listen(path_);
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().message().find("another l7markd"), std::string::npos);
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(Control, FollowersGetEventsAndAreToldOfLosses) {
  auto server = ControlServer::listen(path_);
  ASSERT_TRUE(server);
  EXPECT_FALSE(server->has_followers());
  const Fd fd = dial();
  say(fd, "{\"command\":\"events\"}\n");
  EXPECT_EQ(hear(*server, fd), "{\"ok\":true}\n");
  EXPECT_TRUE(server->has_followers());
  server->publish("{\"type\":\"flow\"}");
  EXPECT_EQ(hear(*server, fd), "{\"type\":\"flow\"}\n");

  // Nobody reads: 8 MB do not fit, and what is left out is counted.
  const std::string line = "{\"x\":\"" + std::string(10'000, 'y') + "\"}";
  for (int i = 0; i < 800; ++i) server->publish(line);
  std::string heard;
  std::size_t before = 1;
  while (heard.size() != before) {
    before = heard.size();
    heard += hear(*server, fd);
  }
  const auto lost = heard.find("{\"type\":\"lost\",\"count\":");
  ASSERT_NE(lost, std::string::npos);
  const std::size_t lines = (heard.size() - (heard.size() - lost)) / (line.size() + 1);
  const int count = std::stoi(heard.substr(lost + std::strlen("{\"type\":\"lost\",\"count\":")));
  EXPECT_EQ(lines + static_cast<std::size_t>(count), 800U);
  server->publish("{\"type\":\"end\"}");
  EXPECT_EQ(hear(*server, fd), "{\"type\":\"end\"}\n");
}

TEST_F(Control, AClientThatGoesIsForgotten) {
  auto server = ControlServer::listen(path_);
  ASSERT_TRUE(server);
  {
    const Fd fd = dial();
    say(fd, "{\"command\":\"events\"}\n");
    hear(*server, fd);
    EXPECT_TRUE(server->has_followers());
  }
  for (int i = 0; i < 5; ++i) server->process();
  EXPECT_FALSE(server->has_followers());
}

}  // namespace
}  // namespace l7mark
