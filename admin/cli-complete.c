/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Completion of words in a shell. The shells' scripts are a few lines that ask this program, which
 * has the table of commands and can ask the daemon: they never lag behind it.
 */
#include "admin/cli.h"

#include <limits.h>
#include <string.h>

#include "admin/paths.h"
#include "admin/qmp-client.h"
#include "util/size.h"

#define FILES ":files" /* the shell completes names of files itself */

static const char bash_script[] =
    "# bash completion for cowtgt; from: cowtgt completion bash\n"
    "_cowtgt() {\n"
    "    local -a words\n"
    "    local line=${COMP_LINE:0:COMP_POINT} cur word done\n"
    "    read -ra words <<<\"$line\"\n"
    "    case $line in *[[:space:]]) words+=('') ;; esac\n"
    "    cur=${words[${#words[@]} - 1]}\n"
    "    done=${cur%\"${cur##*[=:]}\"} # bash takes the rest for the word\n"
    "    COMPREPLY=()\n"
    "    while IFS= read -r word; do\n"
    "        if [ \"$word\" = " FILES " ]; then\n"
    "            compopt -o filenames 2>/dev/null\n"
    "            while IFS= read -r word; do COMPREPLY+=(\"$word\"); done \\\n"
    "                < <(compgen -f -- \"${cur#\"$done\"}\")\n"
    "        else\n"
    "            COMPREPLY+=(\"${word#\"$done\"}\")\n"
    "        fi\n"
    "    done < <(\"${words[0]}\" --complete \"${words[@]:1}\" 2>/dev/null)\n"
    "}\n"
    "complete -F _cowtgt cowtgt\n";

static const char zsh_script[] =
    "#compdef cowtgt\n"
    "# zsh completion for cowtgt; from: cowtgt completion zsh\n"
    "_cowtgt() {\n"
    "    local -a found\n"
    "    found=(\"${(@f)$($words[1] --complete \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\")\n"
    "    if (( ${found[(I)" FILES "]} )); then\n"
    "        found=(\"${(@)found:#" FILES "}\")\n"
    "        _files\n"
    "    fi\n"
    "    compadd -- \"${(@)found:#}\"\n"
    "}\n"
    "if [[ ${funcstack[1]} == _cowtgt ]]; then _cowtgt \"$@\"; else compdef _cowtgt cowtgt; fi\n";

int cli_run_completion(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    const char *shell = cli_str(args, "shell");

    (void)cli;
    (void)cmd;
    if (strcmp(shell, "bash") && strcmp(shell, "zsh"))
        return cli_fail("'%s': completion is there for bash and zsh", shell);
    fputs(*shell == 'b' ? bash_script : zsh_script, stdout);
    return CLI_OK;
}

/* ---- candidates ------------------------------------------------------------------------------ */

struct typed {
    const char *socket;
    char **words; /* behind the command; the last one is what is being typed */
    int nr;
    const char *cur;
};

static void offer(const struct typed *t, const char *word)
{
    if (word && !strncmp(word, t->cur, strlen(t->cur)) && !strpbrk(word, " []"))
        puts(word);
}

static void offer_all(const struct typed *t, const char *const *words)
{
    for (; *words; words++)
        offer(t, *words);
}

/* What options take, by their metavar or name. */
static const struct values {
    const char *what;
    const char *const *words;
} values[] = {
    {"--view", (const char *const[]){"flat", "delta", "image", NULL}},
    {"--cache", (const char *const[]){"auto", "none", "writeback", NULL}},
    {"--format", (const char *const[]){"qcow2", "raw", NULL}},
    {"--on-error", (const char *const[]){"report", "ignore", "stop", "enospc", NULL}},
    {"--block-size", (const char *const[]){"512", "4096", NULL}},
    {"SHELL", (const char *const[]){"bash", "zsh", NULL}},
    {"[AREA=]LEVEL...", (const char *const[]){"error", "warning", "notice", "info", "debug", NULL}},
};

/* What the daemon can name, by the name of a positional or metavar. */
static const struct asked {
    const char *what, *execute, *key;
} asked[] = {
    {"NAME", "query-chains", "name"},      {"JOB", "query-block-jobs", "device"},
    {"USER", "query-accounts", "user"},    {"ID", "query-sessions", "id"},
    {"PORTAL", "query-portals", "portal"}, {"LAYER", "query-named-block-nodes", "node-name"},
};

static void offer_asked(const struct typed *t, const struct asked *a)
{
    struct cli cli = {0};
    struct error err = ERROR_INIT;
    json_t *request, *reply = NULL, *item;
    char number[24];
    size_t i;

    if (qmp_client_connect(t->socket, &cli.qmp, &err))
        return;
    request = json_pack("{s:s}", "execute", a->execute);
    if (!qmp_client_call(cli.qmp, request, &reply, &err)) {
        json_array_foreach (json_object_get(reply, "return"), i, item) {
            const json_t *v = json_object_get(item, a->key);

            snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
            offer(t, json_is_integer(v) ? number : json_string_value(v));
        }
    }
    json_decref(reply);
    json_decref(request);
    qmp_client_close(cli.qmp);
}

static bool is_new_name(const struct cli_cmd *cmd)
{
    return cmd->verb && !strcmp(cmd->noun, "chain") &&
           (!strcmp(cmd->verb, "export") || !strcmp(cmd->verb, "pull"));
}

static void offer_value(const struct typed *t, const struct cli_cmd *cmd, const struct cli_arg *a)
{
    const char *name = a->metavar ? a->metavar : a->name;

    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        if (!strcmp(values[i].what, a->name)) {
            offer_all(t, values[i].words);
            return;
        }
    }
    if (a->kind == CLI_PATH || !strncmp(cmd->noun, "image", 5) || !strncmp(name, "FILE", 4)) {
        puts(FILES);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(asked); i++) {
        if (!strcmp(asked[i].what, name) && !is_new_name(cmd))
            offer_asked(t, &asked[i]);
    }
}

static const struct cli_arg *option_named(const struct cli_cmd *cmd, const char *name)
{
    for (const struct cli_arg *a = cmd->options; a && a->name; a++) {
        if (!strcmp(a->name, name))
            return a;
    }
    return NULL;
}

static void offer_options(const struct typed *t, const struct cli_cmd *cmd)
{
    for (const struct cli_arg *a = cmd->options; a && a->name; a++) {
        bool given = false;

        for (int i = 0; i < t->nr - 1; i++)
            given = given || !strcmp(t->words[i], a->name);
        if (!given || a->kind == CLI_LIST)
            offer(t, a->name);
    }
    offer(t, "--help");
}

static void complete_args(struct typed *t, const struct cli_cmd *cmd)
{
    const struct cli_arg *pos = cmd->positionals, *opt = NULL;
    char *eq;

    for (int i = 0; i < t->nr - 1; i++) {
        if (opt) {
            opt = NULL; /* this was its value */
            continue;
        }
        opt = option_named(cmd, t->words[i]);
        if (opt && !opt->metavar)
            opt = NULL;
        else if (!opt && *t->words[i] != '-' && pos && pos->name)
            pos += pos->kind != CLI_LIST;
    }
    eq = *t->cur == '-' ? strchr(t->cur, '=') : NULL;
    if (eq) {
        *eq = '\0';
        opt = option_named(cmd, t->cur);
        t->cur = eq + 1;
    }
    if (opt)
        offer_value(t, cmd, opt);
    else if (*t->cur == '-')
        offer_options(t, cmd);
    else if (pos && pos->name)
        offer_value(t, cmd, pos);
    else
        offer_options(t, cmd);
}

static void offer_nouns(const struct typed *t)
{
    static const char *const global[] = {"-c", "--control", "--json", "--help", "--version", NULL};
    if (*t->cur == '-')
        offer_all(t, global);
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun; cmd++) {
        bool seen = false;

        for (const struct cli_cmd *c = cli_commands; c != cmd; c++)
            seen = seen || !strcmp(c->noun, cmd->noun);
        if (!seen)
            offer(t, cmd->noun);
    }
}

static void complete_command(struct typed *t, const char *noun, char **words, int nr)
{
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun; cmd++) {
        int taken = cmd->verb ? 1 : 0;

        if (strcmp(cmd->noun, noun))
            continue;
        if (taken && nr == 1) {
            offer(t, cmd->verb);
        } else if (!taken || !strcmp(cmd->verb, words[0])) {
            t->words = words + taken;
            t->nr = nr - taken;
            complete_args(t, cmd);
            return;
        }
    }
}

int cli_complete(int argc, char **argv)
{
    char default_socket[PATH_MAX];
    struct error err = ERROR_INIT;
    struct typed t = {.socket = default_socket, .cur = argc ? argv[argc - 1] : ""};
    int i = 0;

    if (path_default_socket(default_socket, sizeof(default_socket), &err))
        t.socket = "";
    while (i < argc - 1 && *argv[i] == '-') {
        bool control = !strcmp(argv[i], "-c") || !strcmp(argv[i], "--control");

        if (control && i + 2 == argc) {
            puts(FILES);
            return CLI_OK;
        }
        if (control)
            t.socket = argv[i + 1];
        i += control ? 2 : 1;
    }
    if (i >= argc - 1)
        offer_nouns(&t);
    else
        complete_command(&t, argv[i], argv + i + 1, argc - i - 1);
    return CLI_OK;
}
