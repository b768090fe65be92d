/* SPDX-License-Identifier: BSD-3-Clause */
/* Limits, as a list. */
#include "admin/cli.h"

#include <string.h>

static void put_limit(const char *key, const json_t *value)
{
    printf("  %s ", key);
    if (!strncmp(key, "bps", 3) && !strstr(key, "length"))
        cli_put_size(json_integer_value(value));
    else
        printf("%lld", (long long)json_integer_value(value));
}

int cli_run_throttle_list(struct cli *cli, const struct cli_cmd *cmd, json_t *args)
{
    json_t *list, *t, *value;
    const char *key;
    int status = cli_execute(cli, cmd->execute, args, &list);
    size_t i;

    json_array_foreach (list, i, t) {
        cli_put(cli_str(t, "device"));
        fputs("  group ", stdout);
        cli_put(cli_str(t, "group"));
        json_object_foreach (t, key, value) {
            if (json_integer_value(value))
                put_limit(key, value);
        }
        putchar('\n');
    }
    json_decref(list);
    return status;
}
