/* SPDX-License-Identifier: BSD-3-Clause */
/* Arguments of the image commands, for the table: qemu-img's letters and words. */
#include "admin/cli.h"

#define POS(name_, kind_, key_, help_)                                             \
    {                                                                              \
        .name = name_, .kind = kind_, .key = key_, .help = help_, .required = true \
    }
#define MAYBE(name_, kind_, key_, help_)                         \
    {                                                            \
        .name = name_, .kind = kind_, .key = key_, .help = help_ \
    }
#define OPT(name_, metavar_, kind_, key_, help_)                                      \
    {                                                                                 \
        .name = name_, .metavar = metavar_, .kind = kind_, .key = key_, .help = help_ \
    }
#define FLAG(name_, key_, help_) OPT(name_, NULL, CLI_TRUE, key_, help_)
#define END          \
    {                \
        .name = NULL \
    }

#define FORMAT   OPT("-f", "FMT", CLI_STRING, "format", "qcow2 or raw (default: looked at)")
#define PROGRESS FLAG("-p", "progress", "show how far it is")
#define QUIET    FLAG("-q", "quiet", "print nothing but errors")
#define SHARE                                                       \
    FLAG("-U", "force-share", "open it though others write to it"), \
        FLAG("--force-share", "force-share", "the same")
#define OUTPUT       OPT("--output", "FORM", CLI_STRING, "output", "human or json")
#define TARGET_CACHE OPT("-t", "CACHE", CLI_STRING, "target-cache", "none: past the page cache")
#define SOURCE_CACHE OPT("-T", "CACHE", CLI_STRING, "cache", "none: past the page cache")
#define RATE         OPT("-r", "BYTES/s", CLI_SIZE, "rate", "copy no faster")
#define NEW_OPTIONS                                                                     \
    OPT("-o", "KEY=VALUE,...", CLI_LIST, "options",                                     \
        "cluster_size, extended_l2, compat, compression_type, refcount_bits, "          \
        "lazy_refcounts, preallocation, data_file, data_file_raw, size, backing_file, " \
        "backing_fmt")

const struct cli_arg image_file_pos[] = {
    POS("FILENAME", CLI_STRING, "filename", "the image"),
    END,
};

const struct cli_arg image_create_pos[] = {
    POS("FILENAME", CLI_STRING, "filename", "the image to make"),
    MAYBE("SIZE", CLI_STRING, "size", "of the disk (default: that of the backing file)"),
    END,
};
const struct cli_arg image_create_options[] = {
    OPT("-f", "FMT", CLI_STRING, "format", "qcow2 or raw (default: raw)"),
    NEW_OPTIONS,
    OPT("-b", "BACKING", CLI_STRING, "backing", "the image below, relative to the new image"),
    OPT("-F", "FMT", CLI_STRING, "backing-format", "its format"),
    FLAG("-u", "unsafe", "do not look at the backing file"),
    QUIET,
    END,
};

const struct cli_arg image_info_options[] = {
    FORMAT, OUTPUT, FLAG("--backing-chain", "backing-chain", "the images below too"), SHARE, END,
};

const struct cli_arg image_map_options[] = {
    FORMAT,
    OUTPUT,
    OPT("-s", "OFFSET", CLI_SIZE, "start", "where to begin"),
    OPT("-l", "LENGTH", CLI_SIZE, "length", "how much to look at"),
    OPT("--start-offset", "OFFSET", CLI_SIZE, "start", "the same as -s"),
    OPT("--max-length", "LENGTH", CLI_SIZE, "length", "the same as -l"),
    SHARE,
    END,
};

const struct cli_arg image_check_options[] = {
    FORMAT, OPT("-r", "WHAT", CLI_STRING, "repair", "leaks, or all"),
    OUTPUT, SOURCE_CACHE,
    QUIET,  SHARE,
    END,
};

const struct cli_arg image_convert_pos[] = {
    POS("FILENAME... OUTPUT", CLI_LIST, "filenames",
        "the images to read, each with all below it, one behind the other; and the one to make"),
    END,
};
const struct cli_arg image_convert_options[] = {
    FORMAT,
    OPT("-O", "FMT", CLI_STRING, "target-format", "qcow2 or raw (default: raw)"),
    NEW_OPTIONS,
    OPT("-B", "BACKING", CLI_STRING, "backing",
        "make an overlay of it; what it has already is not copied"),
    OPT("-F", "FMT", CLI_STRING, "backing-format", "its format"),
    FLAG("-c", "compress", "write compressed clusters (qcow2)"),
    OPT("-l", "SNAPSHOT", CLI_STRING, "snapshot",
        "the disk as it was at an internal snapshot: its ID or name, or "
        "snapshot.id=ID,snapshot.name=NAME"),
    FLAG("-n", "existing", "write into OUTPUT as it is, make nothing"),
    FLAG("--target-is-zero", "target-is-zero", "with -n: OUTPUT reads zeros already"),
    FLAG("--salvage", "salvage", "what can't be read becomes zeros"),
    RATE,
    FLAG("-C", "copy-offload", "ask the kernel to copy where it can; nothing changes"),
    FLAG("--bitmaps", "bitmaps", "refused: persistent bitmaps are not copied"),
    OPT("-S", "SIZE", CLI_SIZE, "sparse",
        "zeros of this length stay holes (default 4k, 0: write them)"),
    OPT("-m", "N", CLI_NUMBER, "parallel", "pieces under way at once, 1 to 16 (default 8)"),
    FLAG("-W", "any-order", "write in any order; so it is always"),
    TARGET_CACHE,
    SOURCE_CACHE,
    PROGRESS,
    QUIET,
    SHARE,
    END,
};

const struct cli_arg image_rebase_options[] = {
    FORMAT,
    OPT("-b", "BACKING", CLI_STRING, "backing", "the new image below, \"\": none"),
    OPT("-F", "FMT", CLI_STRING, "backing-format", "its format"),
    FLAG("-u", "unsafe", "only change the name; the disk may change"),
    TARGET_CACHE,
    SOURCE_CACHE,
    PROGRESS,
    QUIET,
    SHARE,
    END,
};

const struct cli_arg image_commit_options[] = {
    FORMAT,
    OPT("-b", "BASE", CLI_STRING, "base", "write into this image further down (implies -d)"),
    FLAG("-d", "drop", "do not empty FILENAME afterwards"),
    RATE,
    TARGET_CACHE,
    PROGRESS,
    QUIET,
    END,
};

const struct cli_arg image_compare_pos[] = {
    POS("FILENAME1", CLI_STRING, "filename", "one image"),
    POS("FILENAME2", CLI_STRING, "target", "the other"),
    END,
};
const struct cli_arg image_compare_options[] = {
    FORMAT,
    OPT("-F", "FMT", CLI_STRING, "target-format", "format of the other (default: looked at)"),
    FLAG("-s", "strict", "sizes and allocation have to be equal too"),
    SOURCE_CACHE,
    PROGRESS,
    QUIET,
    SHARE,
    END,
};

const struct cli_arg image_resize_pos[] = {
    POS("FILENAME", CLI_STRING, "filename", "the image"),
    POS("[+|-]SIZE", CLI_STRING, "size", "the new size, or the difference"),
    END,
};
const struct cli_arg image_resize_options[] = {
    FORMAT,
    FLAG("--shrink", "shrink", "it may become smaller; what is behind the end is lost"),
    OPT("--preallocation", "HOW", CLI_STRING, "preallocation",
        "of what is added: off, metadata (qcow2), falloc or full"),
    QUIET,
    END,
};

const struct cli_arg image_update_pos[] = {
    POS("FILENAME", CLI_STRING, "filename", "the image"),
    POS("KEY=VALUE...", CLI_LIST, "settings",
        "copy-on-read=on|off, prefetch=on|off, prefetch-mode=adaptive|idle|fixed, "
        "prefetch-delay=SECONDS, prefetch-grace=SECONDS, max-rate=BYTES/s, "
        "metadata-cache=BYTES, label=TEXT; nothing behind = takes a setting away"),
    END,
};
const struct cli_arg image_update_options[] = {QUIET, END};
