// The header in C++: a subscriber whose callback is a lambda.
#include <ringside.h>

#include <cstdio>
#include <string>

int main(int argc, char **argv)
{
    if (argc != 2) {
        return 1;
    }
    ringside_options_t options{};
    options.struct_bytes = sizeof(options);
    options.client_name = "consumer-cxx";
    ringside_client_t *client = nullptr;
    if (ringside_connect(&client, argv[1], &options) != RINGSIDE_OK) {
        std::fprintf(stderr, "%s\n", ringside_last_error());
        return 1;
    }
    std::string got;
    ringside_subscription_t *subscription = nullptr;
    ringside_publisher_t *publisher = nullptr;
    const auto take = [](void *arg, const ringside_message_t *message) {
        static_cast<std::string *>(arg)->assign(static_cast<const char *>(message->data), message->bytes);
    };
    if (ringside_subscribe(&subscription, client, "install.cxx", nullptr, take, &got) != RINGSIDE_OK ||
        ringside_publisher_create(&publisher, client, "install.cxx", 0) != RINGSIDE_OK ||
        ringside_publish(publisher, "hello", 5) != RINGSIDE_OK) {
        std::fprintf(stderr, "%s\n", ringside_error_text(client));
        return 1;
    }
    while (got.empty()) {
        if (ringside_poll(client, 0, 20000000000ull, nullptr) != RINGSIDE_OK) {
            std::fprintf(stderr, "%s\n", ringside_error_text(client));
            return 1;
        }
    }
    return ringside_close(client, 5000000000ull) == RINGSIDE_OK && got == "hello" ? 0 : 1;
}
