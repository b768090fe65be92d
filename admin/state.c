/* SPDX-License-Identifier: BSD-3-Clause */
/* The state file: load, save, and the table of known files' UUIDs; see state.h. */
#define LOG_AREA "state"
#include "admin/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "admin/json-util.h"
#include "admin/paths.h"
#include "util/co-path.h"
#include "util/log.h"
#include "util/workers.h"

#define STATE_VERSION    1
#define LOCK_PATIENCE_MS 3000
#define STATE_MAX_FILES  16384 /* beyond that the longest unused are forgotten */

struct file_record {
    struct list_head link;
    char *path; /* where it was seen last; for people */
    struct file_identity id;
    struct uuid uuid;
};

static void free_file(struct state *s, struct file_record *f)
{
    list_del(&f->link);
    s->nr_files--;
    free(f->path);
    free(f);
}

static struct file_record *add_file(struct state *s, const char *path)
{
    struct file_record *f = calloc(1, sizeof(*f));

    if (!f)
        return NULL;
    f->path = strdup(path);
    if (!f->path) {
        free(f);
        return NULL;
    }
    if (s->nr_files == STATE_MAX_FILES)
        free_file(s, list_first_entry(&s->files, struct file_record, link));
    list_add_tail(&s->files, &f->link);
    s->nr_files++;
    return f;
}

static bool same_identity(const struct file_identity *a, const struct file_identity *b)
{
    return a->dev == b->dev && a->inode == b->inode && a->size_bytes == b->size_bytes &&
           a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

static struct file_record *find_file(struct state *s, const struct file_identity *id)
{
    struct file_record *f;

    list_for_each_entry (f, &s->files, link) {
        if (f->id.dev == id->dev && f->id.inode == id->inode)
            return f;
    }
    return NULL;
}

void state_set_file_uuid(struct state *s, const char *path, const struct file_identity *id,
                         const struct uuid *uuid)
{
    struct file_record *f = find_file(s, id);

    if (!f)
        f = add_file(s, path);
    if (!f)
        return; /* out of memory: a new UUID each time is right, only less useful */
    record_set(&f->path, path);
    f->id = *id;
    f->uuid = *uuid;
    list_del(&f->link);
    list_add_tail(&s->files, &f->link);
}

void state_file_uuid(struct state *s, const char *path, const struct file_identity *id,
                     struct uuid *uuid)
{
    const struct file_record *f = find_file(s, id);

    if (f && !id->is_device && same_identity(&f->id, id))
        *uuid = f->uuid;
    else
        uuid_make(uuid);
    state_set_file_uuid(s, path, id, uuid);
}

const char *state_find_file(const struct state *s, const struct uuid *uuid, const char *dir)
{
    const struct file_record *f;
    size_t len = strlen(dir);

    list_for_each_entry (f, &s->files, link) {
        const char *slash = strrchr(f->path, '/');

        if (uuid_equal(&f->uuid, uuid) && slash && (size_t)(slash - f->path) == len &&
            !strncmp(f->path, dir, len))
            return f->path;
    }
    return NULL;
}

/* ---- JSON --------------------------------------------------------------------------- */

static json_t *file_to_json(const struct file_record *f)
{
    char text[UUID_STRLEN];

    uuid_to_text(&f->uuid, text);
    return json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:I}", "path", json_text(f->path), "uuid",
                     text, "dev", (json_int_t)f->id.dev, "inode", (json_int_t)f->id.inode, "size",
                     (json_int_t)f->id.size_bytes, "mtime-ns", (json_int_t)f->id.mtime_ns,
                     "ctime-ns", (json_int_t)f->id.ctime_ns);
}

static char *state_to_text(const struct state *s)
{
    json_t *chains = json_array(), *files = json_array(), *portals = json_array(), *root;
    struct chain_record *rec;
    struct file_record *f;
    int bad = 0;
    char *text;

    list_for_each_entry (rec, &s->chains, link)
        bad |= json_array_append_new(chains, record_to_json(rec));
    list_for_each_entry (f, &s->files, link)
        bad |= json_array_append_new(files, file_to_json(f));
    for (unsigned i = 0; i < s->portals.nr; i++)
        bad |= json_array_append_new(portals, json_string(s->portals.items[i]));
    root = json_pack("{s:i, s:s, s:o, s:o, s:o}", "version", STATE_VERSION, "initiator-name",
                     s->initiator, "chains", chains, "files", files, "portals", portals);
    text = bad ? NULL : json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    return text;
}

static int load_file(struct state *s, json_t *j, struct error *err)
{
    json_int_t dev, inode, size, mtime, ctime;
    const char *path, *uuid_text;
    struct file_record *f;
    json_error_t jerr;
    struct uuid uuid;

    if (json_unpack_ex(j, &jerr, JSON_STRICT, "{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "path", &path,
                       "uuid", &uuid_text, "dev", &dev, "inode", &inode, "size", &size, "mtime-ns",
                       &mtime, "ctime-ns", &ctime))
        return error_set(err, EINVAL, "files: %s", jerr.text);
    if (!uuid_from_text(&uuid, uuid_text))
        return error_set(err, EINVAL, "files: \"%s\" is no UUID", uuid_text);
    f = add_file(s, path);
    if (!f)
        return error_set(err, ENOMEM, "out of memory");
    f->uuid = uuid;
    f->id = (struct file_identity){.dev = (uint64_t)dev,
                                   .inode = (uint64_t)inode,
                                   .size_bytes = (uint64_t)size,
                                   .mtime_ns = mtime,
                                   .ctime_ns = ctime};
    return 0;
}

static int load_chain(struct state *s, const json_t *j, struct error *err)
{
    struct chain_record *rec = record_from_json(j, err), *other;

    if (!rec)
        return error_prefix(err, "chains");
    list_for_each_entry (other, &s->chains, link) {
        if (!strcmp(other->name, rec->name)) {
            error_set(err, EINVAL, "chains: \"%s\" is there twice", rec->name);
            record_free(rec);
            return -EINVAL;
        }
    }
    list_add_tail(&s->chains, &rec->link);
    return 0;
}

static int load_portals(struct state *s, const json_t *list, struct error *err)
{
    const json_t *item;
    size_t i;

    json_array_foreach (list, i, item) {
        if (!json_is_string(item))
            return error_set(err, EINVAL, "portals: a member has the wrong type");
        if (string_list_add(&s->portals, json_string_value(item)))
            return error_set(err, ENOMEM, "out of memory");
    }
    return 0;
}

static int load_json(struct state *s, json_t *root, struct error *err)
{
    json_t *chains, *files, *portals = NULL, *item;
    const char *initiator;
    json_error_t jerr;
    int version;
    size_t i;

    if (json_unpack_ex(root, &jerr, 0, "{s:i}", "version", &version))
        return error_set(err, EINVAL, "%s", jerr.text);
    if (version != STATE_VERSION)
        return error_set(err, EINVAL, "version %d is not known (this daemon writes version %d)",
                         version, STATE_VERSION);
    if (json_unpack_ex(root, &jerr, JSON_STRICT, "{s:i, s:s, s:o, s:o, s?o}", "version", &version,
                       "initiator-name", &initiator, "chains", &chains, "files", &files, "portals",
                       &portals))
        return error_set(err, EINVAL, "%s", jerr.text);
    if (!json_is_array(chains) || !json_is_array(files) || (portals && !json_is_array(portals)) ||
        strlen(initiator) >= sizeof(s->initiator))
        return error_set(err, EINVAL, "a member has the wrong type or length");
    strcpy(s->initiator, initiator);
    json_array_foreach (chains, i, item) {
        if (load_chain(s, item, err))
            return -err->errnum;
    }
    json_array_foreach (files, i, item) {
        if (load_file(s, item, err))
            return -err->errnum;
    }
    return load_portals(s, portals, err);
}

/* ---- files -------------------------------------------------------------------------- */

struct save_job {
    const char *dir, *name;
    const char *text;
};

static int write_all(int fd, const char *p, size_t len)
{
    while (len) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        len -= (size_t)n;
    }
    return fsync(fd) ? -errno : 0;
}

static int write_state(void *arg)
{
    const struct save_job *job = arg;
    char tmp[PATH_MAX], path[PATH_MAX];
    int fd, ret;

    if (snprintf(tmp, sizeof(tmp), "%s/%s.tmp", job->dir, job->name) >= (int)sizeof(tmp))
        return -ENAMETOOLONG;
    snprintf(path, sizeof(path), "%s/%s", job->dir, job->name);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    ret = write_all(fd, job->text, strlen(job->text));
    if (close(fd) && !ret)
        ret = -errno;
    if (!ret && rename(tmp, path))
        ret = -errno;
    if (ret) {
        unlink(tmp);
        return ret;
    }
    return path_fsync_dir(job->dir);
}

int co_state_write(const char *dir, const char *name, const char *text)
{
    struct save_job job = {.dir = dir, .name = name, .text = text};

    return co_work(write_state, &job);
}

int co_state_save(struct state *s, struct error *err)
{
    int ret = -ENOMEM;
    char *text;

    co_mutex_lock(&s->saving);
    text = state_to_text(s);
    if (text) {
        ret = co_state_write(s->dir, "state.json", text);
        free(text);
    }
    co_mutex_unlock(&s->saving);
    if (ret)
        return error_set(err, -ret, "can't save the state in %s: %s", s->dir, strerror(-ret));
    return 0;
}

void co_state_save_or_log(struct state *s)
{
    struct error err = ERROR_INIT;

    if (co_state_save(s, &err))
        log_err("%s", err.msg);
}

/* A daemon that was just killed holds its lock until the kernel has taken it apart. */
static int take_lock(int fd)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    int tries = LOCK_PATIENCE_MS / 10;

    while (flock(fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK || !tries--)
            return -1;
        nanosleep(&pause, NULL);
    }
    return 0;
}

static int lock_dir(struct state *s, struct error *err)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/lock", s->dir) >= (int)sizeof(path))
        return error_set(err, ENAMETOOLONG, "state directory %s: the name is too long", s->dir);
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0)
        return error_set(err, errno, "can't open %s: %s; another state directory is given with -s",
                         path, strerror(errno));
    if (take_lock(s->lock_fd)) {
        if (errno == EWOULDBLOCK)
            return error_set_class(err, ERR_DEVICE_IN_USE, EBUSY,
                                   "another daemon uses the state directory %s: stop it, or give "
                                   "this one another with -s",
                                   s->dir);
        return error_set(err, errno, "can't lock %s: %s", path, strerror(errno));
    }
    return 0;
}

static int load(struct state *s, struct error *err)
{
    char path[PATH_MAX];
    json_error_t jerr;
    json_t *root;
    FILE *f;
    int ret;

    snprintf(path, sizeof(path), "%s/state.json", s->dir);
    f = fopen(path, "re");
    if (!f && errno == ENOENT)
        return 0;
    if (!f)
        return error_set(err, errno, "can't open %s: %s", path, strerror(errno));
    root = json_loadf(f, JSON_REJECT_DUPLICATES, &jerr);
    fclose(f);
    ret = root ? load_json(s, root, err)
               : error_set(err, EINVAL, "line %d: %s", jerr.line, jerr.text);
    json_decref(root);
    if (ret) {
        error_prefix(err,
                     "the state file %s is damaged (repair it, or move it away to start with "
                     "nothing)",
                     path);
        return ret;
    }
    return 0;
}

static void make_initiator_name(struct state *s)
{
    char text[UUID_STRLEN];
    struct uuid u;

    uuid_make(&u);
    uuid_to_text(&u, text);
    snprintf(s->initiator, sizeof(s->initiator), "iqn.2026-11.org.cowtgt:initiator:%.12s",
             text + 24);
}

int state_open(const char *dir, struct state **out, struct error *err)
{
    struct state *s = calloc(1, sizeof(*s));
    char real[PATH_MAX];

    if (!s)
        return error_set(err, ENOMEM, "out of memory");
    s->lock_fd = -1;
    list_init(&s->chains);
    list_init(&s->files);
    co_mutex_init(&s->saving);
    if (path_make_dirs(dir, 0700) || !realpath(dir, real)) {
        error_set(err, errno, "can't make the state directory %s: %s", dir, strerror(errno));
        goto bad;
    }
    s->dir = strdup(real);
    if (!s->dir) {
        error_set(err, ENOMEM, "out of memory");
        goto bad;
    }
    if (lock_dir(s, err) || load(s, err))
        goto bad;
    if (!*s->initiator)
        make_initiator_name(s);
    *out = s;
    return 0;
bad:
    state_close(s);
    return -err->errnum;
}

void state_close(struct state *s)
{
    if (!s)
        return;
    while (!list_empty(&s->chains))
        record_free(list_first_entry(&s->chains, struct chain_record, link));
    while (!list_empty(&s->files))
        free_file(s, list_first_entry(&s->files, struct file_record, link));
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    string_list_release(&s->portals);
    free(s->dir);
    free(s);
}
