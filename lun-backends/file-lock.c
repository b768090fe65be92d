/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Image locks as QEMU takes them, so that both keep out of each other's way. Byte 100 + n says
 * "I hold permission n", byte 200 + n "I do not share permission n". All are shared locks of the
 * open file description, so holders never block each other; a conflict is found by asking
 * whether an exclusive lock on the opposite byte would be possible. Locks come first, questions
 * second: of two who race at least one sees the other.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "lun-backends/file-int.h"

#define HELD_BASE     100
#define UNSHARED_BASE 200

enum permission {
    PERM_CONSISTENT_READ,
    PERM_WRITE,
    PERM_WRITE_UNCHANGED,
    PERM_RESIZE,
    NR_PERMS,
};

static const char *const perm_names[NR_PERMS] = {
    [PERM_CONSISTENT_READ] = "consistent read",
    [PERM_WRITE] = "write",
    [PERM_WRITE_UNCHANGED] = "write unchanged",
    [PERM_RESIZE] = "resize",
};

#define READER_HOLDS  (1u << PERM_CONSISTENT_READ)
#define WRITER_HOLDS  (1u << PERM_CONSISTENT_READ | 1u << PERM_WRITE | 1u << PERM_RESIZE)
#define NOBODY_SHARES (1u << PERM_WRITE | 1u << PERM_RESIZE)

static int ofd_lock(int fd, int cmd, short type, off_t byte, struct flock *fl)
{
    *fl = (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, cmd, fl) ? -errno : 0;
}

static int take(int fd, off_t base, unsigned perms)
{
    struct flock fl;

    for (int i = 0; i < NR_PERMS; i++) {
        int ret = perms >> i & 1 ? ofd_lock(fd, F_OFD_SETLK, F_RDLCK, base + i, &fl) : 0;

        if (ret)
            return ret;
    }
    return 0;
}

/* The first permission of @perms on whose byte somebody else has a lock; NR_PERMS: none. */
static int find_conflict(int fd, off_t base, unsigned perms)
{
    struct flock fl;

    for (int i = 0; i < NR_PERMS; i++) {
        if (!(perms >> i & 1))
            continue;
        int ret = ofd_lock(fd, F_OFD_GETLK, F_WRLCK, base + i, &fl);

        if (ret)
            return ret;
        if (fl.l_type != F_UNLCK)
            return i;
    }
    return NR_PERMS;
}

/* Is anyone else in the way of one who holds @holds? 0, or -EAGAIN with @err. */
static int check_others(int fd, const char *path, unsigned holds, struct error *err)
{
    int ret = find_conflict(fd, UNSHARED_BASE, holds);

    if (ret >= 0 && ret < NR_PERMS)
        return error_set_class(err, ERR_DEVICE_IN_USE, EAGAIN,
                               "'%s' is in use: another process does not share \"%s\"", path,
                               perm_names[ret]);
    if (ret >= 0) {
        ret = find_conflict(fd, HELD_BASE, NOBODY_SHARES);
        if (ret >= 0 && ret < NR_PERMS)
            return error_set_class(err, ERR_DEVICE_IN_USE, EAGAIN,
                                   "'%s' is in use: another process has it open for \"%s\"", path,
                                   perm_names[ret]);
    }
    return ret < 0 ? error_set(err, -ret, "locking '%s': %s", path, strerror(-ret)) : 0;
}

int file_lock(int fd, const char *path, bool writable, struct error *err)
{
    unsigned holds = writable ? WRITER_HOLDS : READER_HOLDS;
    int ret = take(fd, HELD_BASE, holds);

    if (!ret)
        ret = take(fd, UNSHARED_BASE, NOBODY_SHARES);
    if (ret == -EAGAIN || ret == -EACCES)
        return error_set_class(err, ERR_DEVICE_IN_USE, EAGAIN,
                               "'%s' is in use: another process has locked it as a whole", path);
    if (ret)
        return error_set(err, -ret, "locking '%s': %s", path, strerror(-ret));
    return check_others(fd, path, holds, err);
}

static void drop(int fd, off_t base)
{
    struct flock fl;

    for (int i = 0; i < NR_PERMS; i++)
        ofd_lock(fd, F_OFD_SETLK, F_UNLCK, base + i, &fl);
}

/* The new locks are there before the old ones go, so nobody can come in between. */
int file_lock_move(int from, int to, const char *path, bool writable, struct error *err)
{
    unsigned holds = writable ? WRITER_HOLDS : READER_HOLDS;
    int ret = take(to, HELD_BASE, holds);

    if (!ret)
        ret = take(to, UNSHARED_BASE, NOBODY_SHARES);
    if (ret)
        return error_set(err, -ret, "locking '%s': %s", path, strerror(-ret));
    if (!writable)
        return 0; /* a reader wants less than the writer had */
    drop(from, HELD_BASE);
    drop(from, UNSHARED_BASE);
    ret = check_others(to, path, holds, err);
    if (ret) {
        take(from, HELD_BASE, READER_HOLDS); /* locks are shared ones: nothing is in their way */
        take(from, UNSHARED_BASE, NOBODY_SHARES);
    }
    return ret;
}
