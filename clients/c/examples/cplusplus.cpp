// Ringside in C++: cplusplus [URL]
//
// The client and what belongs to it end with their scope; a callback is a lambda without captures,
// which gets its object through `arg`. Publishes one message with a header, receives it, and ends.
#include <ringside.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>

namespace {

constexpr std::uint64_t second_ns = 1000000000;

struct Closer {
    void operator()(ringside_client_t *client) const { ringside_close(client, 5 * second_ns); }
};
using Client = std::unique_ptr<ringside_client_t, Closer>;

Client connect(const char *url)
{
    ringside_options_t options{};
    options.struct_bytes = sizeof(options);
    ringside_client_t *client = nullptr;
    if (ringside_connect(&client, url, &options) != RINGSIDE_OK) {
        throw std::runtime_error(ringside_last_error());
    }
    return Client(client);
}

void check(const Client &client, ringside_status_t status)
{
    if (status < 0) {
        throw std::runtime_error(ringside_error_text(client.get()));
    }
}

struct Received {
    std::string data;
    std::string language;
};

void take(void *arg, const ringside_message_t *message)
{
    auto *received = static_cast<Received *>(arg);
    std::size_t bytes = 0;
    const void *value = ringside_header_find(message, "language", &bytes);
    received->data.assign(static_cast<const char *>(message->data), message->bytes);
    if (value != nullptr) {
        received->language.assign(static_cast<const char *>(value), bytes);
    }
}

} // namespace

int main(int argc, char **argv)
{
    try {
        Received received;
        const Client client = connect(argc > 1 ? argv[1] : "auto://localhost");
        ringside_subscription_t *subscription = nullptr;
        ringside_publisher_t *publisher = nullptr;
        const ringside_header_t header{"Language", "C++", 3};
        check(client, ringside_subscribe(&subscription, client.get(), "example.cplusplus", nullptr,
                                         take, &received));
        check(client,
              ringside_publisher_create(&publisher, client.get(), "example.cplusplus", 0));
        check(client, ringside_publish_with(publisher, &header, 1, "hello", 5));
        while (received.data.empty()) {
            check(client, ringside_poll(client.get(), 0, second_ns, nullptr));
        }
        std::printf("%s from %s\n", received.data.c_str(), received.language.c_str());
        return received.data == "hello" && received.language == "C++" ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
