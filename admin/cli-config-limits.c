/* SPDX-License-Identifier: BSD-3-Clause */
/* Limits of a disk ("throttle") and of its layers' LUNs ("lun-throttle"); see cli-config-plan.h. */
#include <stdio.h>
#include <string.h>

#include "admin/cli-config-plan.h"

/* Without zeros, with a group; NULL: no limits. */
static json_t *whole_throttle(const char *name, const json_t *t)
{
    json_t *j = json_deep_copy(t), *value;
    const char *key;
    void *tmp;

    json_object_foreach_safe (j, tmp, key, value) {
        if (json_is_integer(value) && !json_integer_value(value))
            json_object_del(j, key);
    }
    if (j && !json_object_get(j, "group"))
        json_object_set_new(j, "group", json_string(name));
    if (json_object_size(j) > 1)
        return j;
    json_decref(j);
    return NULL;
}

static void plan_throttle(struct config_plan *p, const char *name, const json_t *now,
                          const json_t *wanted)
{
    json_t *has = whole_throttle(name, now), *args = whole_throttle(name, wanted);

    if (has == args || (has && args && json_equal(has, args))) {
        json_decref(args);
    } else {
        const char *says = args ? "set" : "no";

        args = args ? args : json_object();
        json_object_set_new(args, "device", json_string(name));
        config_step(p, "block_set_io_throttle", args, "%s: %s limits", name, says);
    }
    json_decref(has);
}

static const json_t *of_lun(const json_t *list, const json_t *lun)
{
    const json_t *item;
    size_t i;

    json_array_foreach (list, i, item) {
        if (json_equal(json_object_get(item, "lun"), lun))
            return item;
    }
    return NULL;
}

static void plan_lun_throttle(struct config_plan *p, const char *name, const json_t *lun,
                              const json_t *now, const json_t *wanted)
{
    json_t *has = json_deep_copy(now), *want = json_deep_copy(wanted);
    char device[96]; /* a name's 64, a number's 20 */

    json_object_del(has, "lun");
    json_object_del(want, "lun");
    snprintf(device, sizeof(device), "%.64s/%lld", name, (long long)json_integer_value(lun));
    plan_throttle(p, device, has, want);
    json_decref(has);
    json_decref(want);
}

static void plan_lun_throttles(struct config_plan *p, const char *name, const json_t *now,
                               const json_t *wanted)
{
    const json_t *t, *lun;
    size_t i;

    json_array_foreach (wanted, i, t) {
        lun = json_object_get(t, "lun");
        plan_lun_throttle(p, name, lun, of_lun(now, lun), t);
    }
    json_array_foreach (now, i, t) {
        lun = json_object_get(t, "lun");
        if (!of_lun(wanted, lun))
            plan_lun_throttle(p, name, lun, t, NULL);
    }
}

void config_plan_limits(struct config_plan *p, const json_t *now, const json_t *wanted)
{
    const char *name = config_text(wanted, "name");

    plan_throttle(p, name, json_object_get(now, "throttle"), json_object_get(wanted, "throttle"));
    plan_lun_throttles(p, name, json_object_get(now, "lun-throttle"),
                       json_object_get(wanted, "lun-throttle"));
}
