/* SPDX-License-Identifier: BSD-3-Clause */
/* Daemonising and telling a service manager; see background.h. */
#define LOG_AREA "daemon"
#include "admin/background.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/log.h"

static int ready_fd = -1;
static int starter_fd = -1; /* standard error of whoever starts us, until we are ready */
static char *log_file;

/* One byte means ready; an end of file without one, that the child has failed and said why. */
static void wait_for_child(int fd)
{
    char byte;
    ssize_t n;

    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    _exit(n == 1 ? 0 : 1);
}

int background_start(void)
{
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC))
        return -errno;
    pid = fork();
    if (pid < 0)
        return -errno;
    if (pid) {
        close(fds[1]);
        wait_for_child(fds[0]);
    }
    close(fds[0]);
    ready_fd = fds[1];
    if (setsid() < 0 || chdir("/"))
        return -errno;
    return 0;
}

static int point_output_at(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (fd < 0)
        return -errno;
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
    return 0;
}

int background_log_to(const char *path)
{
    int fd, ret;

    log_file = strdup(path);
    if (!log_file)
        return -ENOMEM;
    starter_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        dup2(fd, STDIN_FILENO);
        close(fd);
    }
    ret = point_output_at(path);
    if (ret && starter_fd >= 0)
        close(starter_fd);
    if (ret)
        starter_fd = -1;
    return ret;
}

void background_complain(const char *what)
{
    fprintf(stderr, "cowtgtd: %s\n", what);
    if (starter_fd >= 0)
        dprintf(starter_fd, "cowtgtd: %s\n", what);
}

void background_ready(void)
{
    if (ready_fd < 0)
        return;
    if (write(ready_fd, "r", 1) < 0)
        log_notice("whoever started the daemon did not wait for it");
    close(ready_fd);
    if (starter_fd >= 0)
        close(starter_fd);
    ready_fd = starter_fd = -1;
}

void background_reopen_log(void)
{
    int ret = log_file ? point_output_at(log_file) : 0;

    if (ret)
        log_err("%s: %s", log_file, strerror(-ret));
}

void service_notify(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    int fd;

    if (!len || len >= sizeof(sa.sun_path) || (*path != '/' && *path != '@'))
        return;
    memcpy(sa.sun_path, path, len);
    if (*path == '@') /* the abstract name space */
        sa.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&sa,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
        log_warn("can't tell the service manager: %s", strerror(errno));
    close(fd);
}
