/* SPDX-License-Identifier: BSD-3-Clause */
/* Showing accounts. */
#include <stdio.h>

#include "admin/cli.h"

int cli_run_account_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *list, *a;
    int status = cli_execute(cli, cmd->execute, args, &list);
    size_t i;

    json_array_foreach (list, i, a) {
        cli_put(cli_str(a, "user"));
        fputs(cli_bool(a, "outgoing") ? "  proves us to initiators of " : "  may log in to ",
              stdout);
        if (cli_bool(a, "discovery"))
            fputs("discovery", stdout);
        else
            fputs("chain ", stdout);
        cli_put(cli_str(a, "chain"));
        putchar('\n');
    }
    json_decref(list);
    return status;
}
