"""A program for guests that loads a connection to the host.

    load out|in|ask ADDRESS|vsock PORT COUNT

Connects by TCP, or by vsock to the host, then writes COUNT bytes, reads to the end, or COUNT times asks with 64 bytes and
waits for as many. Exit code 1: that did not work.
"""

from machine import static_program

_SOURCE = """
#include <arpa/inet.h>
#include <linux/vm_sockets.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static char block[262144];
int main(int argc, char** argv) {
    struct sockaddr_vm far = {.svm_family = AF_VSOCK, .svm_cid = 2};
    struct sockaddr_in near = {.sin_family = AF_INET};
    int fd, tcp, on = 1;
    long left;
    if (argc != 5) return 2;
    tcp = strcmp(argv[2], "vsock") != 0;
    near.sin_addr.s_addr = inet_addr(argv[2]);
    near.sin_port = htons((unsigned short)atol(argv[3]));
    far.svm_port = (unsigned)atol(argv[3]);
    left = atol(argv[4]);
    fd = socket(tcp ? AF_INET : AF_VSOCK, SOCK_STREAM, 0);
    if (tcp) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, tcp ? (struct sockaddr*)&near : (struct sockaddr*)&far, tcp ? sizeof near : sizeof far) != 0) return 1;
    if (strcmp(argv[1], "in") == 0) {
        while (read(fd, block, sizeof block) > 0) {
        }
        return 0;
    }
    if (strcmp(argv[1], "ask") == 0) {
        for (; left > 0; --left) {
            if (write(fd, block, 64) != 64 || recv(fd, block, 64, MSG_WAITALL) != 64) return 1;
        }
        return 0;
    }
    while (left > 0) {
        ssize_t n = write(fd, block, left < (long)sizeof block ? (size_t)left : sizeof block);
        if (n <= 0) return 1;
        left -= n;
    }
    return 0;
}
"""


def load_program(folder):
    """Compiles it; gives its path."""
    return static_program(folder, "load", _SOURCE)
