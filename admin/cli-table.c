/* SPDX-License-Identifier: BSD-3-Clause */
/* The commands of cowtgt: the one table. */
#include "admin/cli.h"

#include <stddef.h>

#define ARGS(...) ((const struct cli_arg[]){__VA_ARGS__, {.name = NULL}})
#define POS(name_, kind_, key_, help_)                                             \
    {                                                                              \
        .name = name_, .kind = kind_, .key = key_, .help = help_, .required = true \
    }
#define OPT(name_, metavar_, kind_, key_, help_)                                      \
    {                                                                                 \
        .name = name_, .metavar = metavar_, .kind = kind_, .key = key_, .help = help_ \
    }
#define FLAG(name_, kind_, key_, help_) OPT(name_, NULL, kind_, key_, help_)
#define MUST(name_, metavar_, kind_, key_, help_)                                      \
    {                                                                                  \
        .name = name_, .metavar = metavar_, .kind = kind_, .key = key_, .help = help_, \
        .required = true                                                               \
    }

#define ACCESS_OPTIONS                                                                            \
    OPT("--target", "IQN", CLI_STRING, "target", "name of the target (default: made from NAME)"), \
        OPT("--allow", "IQN", CLI_LIST, "allow",                                                  \
            "initiator, or address ADDR[/LEN], that may log in; repeatable (default: all)"),      \
        OPT("--portal-group", "N", CLI_LIST, "portal-group",                                      \
            "served only at portals of this group; repeatable (default: at all)"),                \
        OPT("--mask", "INITIATOR=LUNS", CLI_LIST, "mask",                                         \
            "LUNs that this initiator sees, as lun mask takes them; repeatable (default: all)"),  \
        OPT("--user", "NAME", CLI_STRING, "user", "user that initiators log in as"),              \
        OPT("--secret-file", "FILE", CLI_PATH, "secret-file", "file with that secret")

static const struct cli_arg name_pos[] = {
    POS("NAME", CLI_STRING, "name", "the chain"),
    {.name = NULL},
};

static const struct cli_arg user_pos[] = {
    POS("USER", CLI_STRING, "user", "the account's name"),
    {.name = NULL},
};

#define ACCOUNT_OPTIONS                                                       \
    OPT("--chain", "NAME", CLI_STRING, "chain", "for logins to this chain"),  \
        FLAG("--discovery", CLI_TRUE, "discovery", "for discovery sessions"), \
        FLAG("--outgoing", CLI_TRUE, "outgoing", "what we prove ourselves with (mutual CHAP)")

static const struct cli_arg job_pos[] = {
    POS("JOB", CLI_STRING, "device", "the job; a pull's job has the chain's name"),
    {.name = NULL},
};

static const struct cli_arg export_options[] = {
    OPT("--format", "F", CLI_STRING, "format", "qcow2 or raw (default: looked at once and kept)"),
    ACCESS_OPTIONS,
    FLAG("--writable", CLI_TRUE, "writable", "LUN 0 may be written to"),
    OPT("--view", "V", CLI_STRING, "view",
        "what layer LUNs show: flat (the disk as it was), delta (one layer's own data), image (the "
        "file's bytes)"),
    OPT("--block-size", "BYTES", CLI_SIZE, "block-size",
        "logical blocks of all its LUNs: 512 (default) or 4096"),
    FLAG("--removable", CLI_TRUE, "removable", "initiators may eject and load LUN 0's medium"),
    OPT("--cache", "MODE", CLI_STRING, "cache",
        "auto (default), none (past the page cache) or writeback (through it)"),
    FLAG("--probe-backing", CLI_TRUE, "probe-backing",
         "look at backing files without a recorded format (default: they are raw)"),
    {.name = NULL},
};

static const struct cli_arg pull_options[] = {
    MUST("--into", "DIR", CLI_PATH, "into",
         "where NAME.qcow2 (or NAME.raw) is made, or a block device"),
    OPT("--source-secret-file", "FILE", CLI_PATH, "source-secret-file",
        "secret of USER at the source"),
    FLAG("--quiesced", CLI_TRUE, "quiesced", "nobody writes to the source, though it could be"),
    ACCESS_OPTIONS,
    OPT("--format", "F", CLI_STRING, "format",
        "format of the local copy: qcow2 or raw (default: qcow2)"),
    FLAG("--keep-layers", CLI_TRUE, "keep-layers",
         "recreate each of the source's layers in a file of its own"),
    OPT("--base", "LAYER", CLI_STRING, "base",
        "a layer to keep as backing: UUID, name, file here, or LAYER=FILE"),
    FLAG("--no-stream", CLI_FALSE, "stream", "do not copy in the background"),
    FLAG("--no-copy-on-read", CLI_FALSE, "copy-on-read", "do not keep what is read"),
    OPT("--speed", "BYTES/s", CLI_SIZE, "speed", "limit of the background copy"),
    OPT("--source-timeout", "SECONDS", CLI_NUMBER, "source-timeout",
        "how long commands wait for a source that is away (default 120)"),
    FLAG("--source-digests", CLI_TRUE, "source-digests",
         "insist on checksums of what the source sends (headers)"),
    {.name = NULL},
};

static const struct cli_arg stream_options[] = {
    OPT("--base", "LAYER", CLI_STRING, "base", "the layer that stays below: file, node or UUID"),
    OPT("--speed", "N", CLI_SIZE, "speed", "bytes per second (default: no limit)"),
    OPT("--on-error", "ACTION", CLI_STRING, "on-error",
        "report (default), ignore, stop or enospc (stop when the disk is full)"),
    OPT("--throttle-group", "G", CLI_STRING, "throttle-group",
        "what it moves counts in the limits of G, too"),
    {.name = NULL},
};

static const struct cli_arg commit_options[] = {
    OPT("--top", "L", CLI_STRING, "top", "topmost layer to merge (default: the one written to)"),
    OPT("--base", "L", CLI_STRING, "base", "layer to merge into (default: the one below top)"),
    OPT("--speed", "BYTES/s", CLI_SIZE, "speed", "limit of the copy"),
    OPT("--on-error", "ACTION", CLI_STRING, "on-error",
        "report (default), ignore (try again), stop or enospc (stop when the disk is full)"),
    {.name = NULL},
};

#define COPY_OPTIONS                                                                             \
    MUST("--to", "FILE", CLI_PATH, "to", "the copy; it must not exist (but see --existing)"),    \
        OPT("--format", "F", CLI_STRING, "format", "qcow2 or raw (default: as the disk's top)"), \
        OPT("--sync", "S", CLI_STRING, "sync",                                                   \
            "full (default): all of the disk; top: what its top layer holds, over the layers "   \
            "below; none: only what changes from now on"),                                       \
        FLAG("--existing", CLI_TRUE, "existing", "FILE is there already, with the disk's size"), \
        OPT("--speed", "BYTES/s", CLI_SIZE, "speed", "limit of the copy"),                       \
        OPT("--on-error", "ACTION", CLI_STRING, "on-error",                                      \
            "report (default), ignore (try again), stop or enospc (stop when the disk is full)")

static const struct cli_arg mirror_options[] = {
    COPY_OPTIONS,
    FLAG("--switch", CLI_TRUE, "switch", "go over to the copy as soon as it is complete"),
    FLAG("--write-blocking", CLI_TRUE, "write-blocking", "a write is over when the copy has it"),
    {.name = NULL},
};

static const struct cli_arg backup_options[] = {COPY_OPTIONS, {.name = NULL}};

static const struct cli_arg throttle_options[] = {
    OPT("--group", "G", CLI_STRING, "group", "share the limits with what else is in G"),
    OPT("--bps", "BYTES/s", CLI_SIZE, "bps", "reads and writes"),
    OPT("--bps-read", "BYTES/s", CLI_SIZE, "bps_rd", "reads"),
    OPT("--bps-write", "BYTES/s", CLI_SIZE, "bps_wr", "writes, zeroing, discards"),
    OPT("--iops", "N", CLI_NUMBER, "iops", "operations a second"),
    OPT("--iops-read", "N", CLI_NUMBER, "iops_rd", "reads"),
    OPT("--iops-write", "N", CLI_NUMBER, "iops_wr", "writes, zeroing, discards"),
    OPT("--bps-max", "BYTES/s", CLI_SIZE, "bps_max", "in a burst"),
    OPT("--bps-max-length", "SECONDS", CLI_NUMBER, "bps_max_length", "of such a burst"),
    OPT("--iops-max", "N", CLI_NUMBER, "iops_max", "in a burst"),
    OPT("--iops-max-length", "SECONDS", CLI_NUMBER, "iops_max_length", "of such a burst"),
    OPT("--iops-size", "BYTES", CLI_SIZE, "iops_size", "larger requests count several times"),
    {.name = NULL},
};

const struct cli_cmd cli_commands[] = {
    {"chain", "export", "serve IMAGE and its backing chain: LUN 0 the disk, LUN 1..N the layers",
     "chain-export",
     ARGS(POS("NAME", CLI_STRING, "name", "name for the chain"),
          POS("IMAGE", CLI_PATH, "image", "the top image")),
     export_options, cli_run_chain_export},
    {"chain", "pull", "serve a remote disk at once over a local overlay, and copy it", "chain-pull",
     ARGS(POS("NAME", CLI_STRING, "name", "name for the chain"),
          POS("iscsi://[USER@]HOST[:PORT]/IQN[/LUN]", CLI_STRING, "url", "the source")),
     pull_options, cli_run_chain_pull},
    {"chain", "list", "all chains", "query-chains", NULL, NULL, cli_run_chain_list},
    {"chain", "show", "a chain as a tree", "query-chains", name_pos, NULL, cli_run_chain_show},
    {"chain", "remove", "stop serving a chain; its image files stay", "chain-remove", name_pos,
     ARGS(FLAG("--force", CLI_TRUE, "force", "also while it is in use")), cli_run_plain},
    {"chain", "snapshot", "freeze a disk in use: new writes go to a new file", "chain-snapshot",
     name_pos,
     ARGS(OPT("--into", "FILE", CLI_PATH, "into",
              "the new qcow2 file (default: NAME-snN.qcow2 beside the top)")),
     cli_run_chain_snapshot},
    {"chain", "commit", "merge layers of a disk in use into one below them", "chain-commit",
     name_pos, commit_options, cli_run_chain_commit},
    {"chain", "mirror", "copy a disk in use into a file that follows it, to go over to it",
     "chain-mirror", name_pos, mirror_options, cli_run_chain_mirror},
    {"chain", "backup", "copy a disk in use as it is now", "chain-backup", name_pos, backup_options,
     cli_run_chain_commit},
    {"chain", "drop-layer", "take a layer out that nothing above it needs", "chain-drop-layer",
     ARGS(POS("NAME", CLI_STRING, "name", "the chain"),
          POS("LAYER", CLI_STRING, "layer", "by file, UUID or node name")),
     NULL, cli_run_plain},
    {"chain", "switch-backing", "put a disk in use over another backing that reads the same",
     "chain-switch-backing",
     ARGS(POS("NAME", CLI_STRING, "name", "the chain"),
          POS("FILE", CLI_PATH, "file", "the backing image from now on, with its own backings")),
     ARGS(OPT("--layer", "L", CLI_STRING, "layer", "which layer goes over it (default: the top)"),
          OPT("--format", "F", CLI_STRING, "format",
              "of FILE: qcow2 or raw (default: as it looks)")),
     cli_run_plain},
    {"chain", "set", "change settings of a chain in use; its image keeps them", "chain-set",
     ARGS(POS("NAME", CLI_STRING, "name", "the chain"),
          POS("KEY=VALUE...", CLI_LIST, "settings", "as for image update; see there")),
     NULL, cli_run_plain},
    {"chain", "resize", "give a disk in use another size", "block_resize",
     ARGS(POS("NAME", CLI_STRING, "device", "the chain"),
          POS("SIZE", CLI_SIZE, "size", "of the disk, in bytes or with k M G T")),
     ARGS(FLAG("--shrink", CLI_TRUE, "shrink",
               "it may become smaller: what is behind the end is lost")),
     cli_run_plain},
    {"throttle", "set", "limit a disk, or several in a group together; no option: no limit",
     "block_set_io_throttle",
     ARGS(POS("NAME[/LUN]", CLI_STRING, "device", "the chain, or one LUN of it")), throttle_options,
     cli_run_plain},
    {"throttle", "list", "limits and groups", "query-throttle", NULL, NULL, cli_run_throttle_list},
    {"job", "list", "all jobs", "query-block-jobs", NULL, NULL, cli_run_job_list},
    {"job", "show", "a job, or how it ended", "query-block-jobs", job_pos, NULL, cli_run_job_show},
    {"job", "wait", "show a job's progress until it ends", "query-block-jobs", job_pos, NULL,
     cli_run_job_wait},
    {"job", "pause", "pause a job", "block-job-pause", job_pos, NULL, cli_run_plain},
    {"job", "resume", "let a paused job go on", "block-job-resume", job_pos, NULL, cli_run_plain},
    {"job", "complete", "let a job that is ready come to its end", "block-job-complete", job_pos,
     NULL, cli_run_plain},
    {"job", "cancel", "end a job early and wait for its end; a mirror that is ready leaves a copy",
     "block-job-cancel", job_pos,
     ARGS(FLAG("--force", CLI_TRUE, "force", "a mirror, too, at once: its copy is incomplete")),
     cli_run_job_cancel},
    {"job", "set-speed", "limit a job", "block-job-set-speed",
     ARGS(POS("JOB", CLI_STRING, "device", "the job"),
          POS("BYTES/s", CLI_SIZE, "speed", "0: no limit")),
     NULL, cli_run_plain},
    {"job", "set-group", "a stream's place in a throttle group; without one: in none",
     "block-job-set-throttle-group", job_pos,
     ARGS(OPT("--group", "G", CLI_STRING, "group", "what it moves counts in the limits of G")),
     cli_run_plain},
    {"stream", "start", "start a stream by hand", "block-stream",
     ARGS(POS("NAME", CLI_STRING, "device", "the chain, or the node of one of its layers")),
     stream_options, cli_run_plain},
    {"discover", NULL, "targets of another host, their LUNs and chains", "discover",
     ARGS(POS("HOST[:PORT]", CLI_STRING, "host", "portal to ask")), NULL, cli_run_discover},
    {"chain", "redirect", "send initiators that log in to another address", "chain-redirect",
     name_pos,
     ARGS(OPT("--to", "ADDR[:PORT]", CLI_STRING, "to", "where; without it they stay here"),
          FLAG("--permanently", CLI_TRUE, "permanently", "tell them to remember it")),
     cli_run_plain},
    {"lun", "mask", "which LUNs of a chain an initiator sees", "lun-mask", name_pos,
     ARGS(MUST("--initiator", "IQN", CLI_STRING, "initiator",
               "whose; '*': all that have no mask of their own"),
          MUST("--luns", "LIST", CLI_STRING, "luns", "numbers like 0,2-4, or none, or all")),
     cli_run_plain},
    {"lun", "unmask", "take an initiator's mask away", "lun-unmask", name_pos,
     ARGS(MUST("--initiator", "IQN", CLI_STRING, "initiator", "whose")), cli_run_plain},
    {"account", "add", "a user and secret that initiators log in with (CHAP)", "account-add",
     user_pos,
     ARGS(MUST("--secret-file", "FILE", CLI_PATH, "secret-file", "file with the secret"),
          ACCOUNT_OPTIONS),
     cli_run_plain},
    {"account", "list", "all accounts", "query-accounts", NULL, NULL, cli_run_account_list},
    {"account", "remove", "take an account away; open sessions stay", "account-remove", user_pos,
     ARGS(ACCOUNT_OPTIONS,
          FLAG("--open", CLI_TRUE, "open", "also the last one: everybody may log in then")),
     cli_run_plain},
    {"session", "list", "who is connected", "query-sessions", NULL, NULL, cli_run_session_list},
    {"session", "close", "drop a session", "session-close",
     ARGS(POS("ID", CLI_NUMBER, "id", "as session list says")),
     ARGS(FLAG("--logout", CLI_TRUE, "logout",
               "ask the initiator to log out, and wait for it a little")),
     cli_run_plain},
    {"event", "follow", "print events as they come", NULL, NULL, NULL, cli_run_event_follow},
    {"status", NULL,
     "is all well, and what there is; status 0 ok, 1 degraded, 2 critical or no daemon, 3 wrong "
     "usage",
     "query-daemon", NULL, NULL, cli_run_status},
    {"config", "save", "write what the daemon was asked for into a file", "query-config",
     ARGS(POS("FILE", CLI_STRING, "file", "JSON; -: standard output")), NULL, cli_run_config},
    {"config", "apply", "make the daemon as a file says: only what differs is done", NULL,
     ARGS(POS("FILE", CLI_STRING, "file", "as config save writes it; -: standard input")),
     ARGS(
         FLAG("--dry-run", CLI_TRUE, "dry-run", "only say what would be done"),
         FLAG("--prune", CLI_TRUE, "prune", "stop serving chains that the file does not have"),
         FLAG("--replace", CLI_TRUE, "replace", "serve chains anew whose image or view is another"),
         FLAG("--force", CLI_TRUE, "force",
              "with --prune and --replace: also while initiators are logged in")),
     cli_run_config},
    {"portal", "list", "addresses that are listened on", "query-portals", NULL, NULL,
     cli_run_portal_list},
    {"portal", "add", "listen at one more address, after a restart too", "portal-add",
     ARGS(POS("PORTAL", CLI_STRING, "portal", "ADDR[:PORT][,advertise=HOST[:PORT]][,group=N]")),
     NULL, cli_run_plain},
    {"portal", "remove", "stop listening at an address; open sessions stay", "portal-remove",
     ARGS(POS("PORTAL", CLI_STRING, "portal", "ADDR[:PORT]")), NULL, cli_run_plain},
    {"chain", "access", "who may log in from now on: exactly these, none: everybody",
     "chain-access", name_pos,
     ARGS(OPT("--allow", "IQN", CLI_LIST, "allow", "initiator, or address ADDR[/LEN]; repeatable"),
          OPT("--portal-group", "N", CLI_LIST, "portal-group",
              "served only at portals of this group; repeatable (default: at all)")),
     cli_run_plain},
    {"log", "list", "areas of the daemon's log, and how much each says", "query-log", NULL, NULL,
     cli_run_log_list},
    {"log", "set", "change how much the log says, until the daemon ends", "log-set",
     ARGS(POS("[AREA=]LEVEL...", CLI_LIST, "levels",
              "error, warning, notice, info or debug; of an area also default: as all others")),
     NULL, cli_run_plain},
    {"qmp", NULL, "send JSON to the control socket as it is", NULL,
     ARGS(POS("JSON", CLI_STRING, "json", "{\"execute\": ...}")), NULL, cli_run_qmp},
    {"completion", NULL, "a script that lets a shell complete what cowtgt takes", NULL,
     ARGS(POS("SHELL", CLI_STRING, "shell", "bash or zsh")), NULL, cli_run_completion},
    {"image", "create", "make an image file", NULL, image_create_pos, image_create_options,
     cli_run_image},
    {"image", "info", "what an image file is", NULL, image_file_pos, image_info_options,
     cli_run_image},
    {"image", "map", "where the disk's data is: layer and offset", NULL, image_file_pos,
     image_map_options, cli_run_image},
    {"image", "check",
     "check a qcow2 file, and repair it; status 0 good, 1 not checked, 2 corrupt, 3 leaks, "
     "63 no qcow2",
     NULL, image_file_pos, image_check_options, cli_run_image},
    {"image", "convert", "copy an image and all below it into one file", NULL, image_convert_pos,
     image_convert_options, cli_run_image},
    {"image", "rebase", "give an overlay another image below", NULL, image_file_pos,
     image_rebase_options, cli_run_image},
    {"image", "commit", "write an overlay into the image below, and empty it", NULL, image_file_pos,
     image_commit_options, cli_run_image},
    {"image", "compare", "have two images the same content? status 0 yes, 1 no, 2 and more: error",
     NULL, image_compare_pos, image_compare_options, cli_run_image},
    {"image", "resize", "change the size of the disk", NULL, image_resize_pos, image_resize_options,
     cli_run_image},
    {"image", "update", "change cowtgt's settings kept in a qcow2 file", NULL, image_update_pos,
     image_update_options, cli_run_image},
    {.noun = NULL},
};
