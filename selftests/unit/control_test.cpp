// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/control.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace l7mark {
namespace {

using Json = nlohmann::ordered_json;

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
  server->set_handler([](const std::string& command, const Json& arguments,
                         const ControlServer::Line& line) -> Json {
    line({{"part", 1}});
    return {{"command", command}, {"arguments", arguments}};
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
  server->set_handler(
      [](const std::string&, const Json&, const ControlServer::Line&) -> Json { return {}; });
  const Fd fd = dial();
  for (const char* request : {"nonsense\n", "[]\n", "{\"command\":5}\n", "\n"}) {
    say(fd, request);
    EXPECT_NE(hear(*server, fd).find("\"ok\":false"), std::string::npos) << request;
  }
  const std::string endless(70'000, 'x');
  say(fd, endless);
  EXPECT_NE(hear(*server, fd).find("too long"), std::string::npos);
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
