// What libdbus.a names of libsystemd, which Debian has no archive of: how a D-Bus server takes over
// sockets from systemd. The runtime is a client only; with these it links, and a call would be told
// that there are none.
#include <cerrno>

extern "C" {
int sd_listen_fds(int unset_environment);
int sd_is_socket(int fd, int family, int type, int listening);

int sd_listen_fds(int /*unset_environment*/) {
    return 0;
}

int sd_is_socket(int /*fd*/, int /*family*/, int /*type*/, int /*listening*/) {
    return -ENOSYS;
}
}
