/* SPDX-License-Identifier: BSD-3-Clause */
/* Showing the levels of the log. */
#include "admin/cli.h"

int cli_run_log_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *log, *a;
    int status = cli_execute(cli, cmd->execute, args, &log);
    size_t i;

    if (!log)
        return status;
    printf("%s, to %s\n", cli_str(log, "level"), cli_str(log, "to"));
    json_array_foreach (json_object_get(log, "areas"), i, a)
        printf("%s=%s%s\n", cli_str(a, "area"), cli_str(a, "level"),
               cli_bool(a, "own") ? "  (its own)" : "");
    json_decref(log);
    return status;
}
