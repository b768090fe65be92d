/* SPDX-License-Identifier: BSD-3-Clause */
/* LUN numbers of layers over changes and restarts: never given twice, kept by path. */
#include <stdlib.h>
#include <string.h>

#include "admin/chains.h"
#include "tests/unit/ctest.h"

static struct layer layers[8];

/* A chain as it is after opening: @paths ends with NULL. */
static void open_chain(struct chain *c, struct chain_record *rec, char *const *paths)
{
    memset(layers, 0, sizeof(layers));
    *c = (struct chain){.rec = rec, .layers = layers};
    for (; paths[c->nr_layers]; c->nr_layers++) {
        layers[c->nr_layers].filename = paths[c->nr_layers];
        strcpy(layers[c->nr_layers].format, "qcow2");
    }
}

static char *const three[] = {"/a", "/b", "/c", NULL};
static char *const four[] = {"/a", "/b", "/c", "/d", NULL};
static char *const merged[] = {"/a", "/c", NULL};

TEST(layers, the_first_time_they_are_numbered_from_the_base)
{
    struct chain_record *rec = record_new("export", "c");
    struct error err = ERROR_INIT;
    struct chain c;

    open_chain(&c, rec, three);
    CHECK_EQ(chain_match_layers(&c, &err), 0);
    CHECK_EQ(layers[0].lun, 1);
    CHECK_EQ(layers[2].lun, 3);
    CHECK_EQ(chain_next_lun(rec), 4);
    CHECK_EQ(rec->generation, 0);
    CHECK_STR(rec->path, "/c");
    record_free(rec);
}

TEST(layers, a_number_that_is_free_again_is_not_given_away)
{
    struct chain_record *rec = record_new("export", "c");
    struct error err = ERROR_INIT;
    struct chain c;

    open_chain(&c, rec, four);
    CHECK_EQ(chain_match_layers(&c, &err), 0);
    open_chain(&c, rec, merged); /* /d, with the highest number, and /b went */
    CHECK_EQ(chain_match_layers(&c, &err), 0);
    CHECK_EQ(layers[0].lun, 1);
    CHECK_EQ(layers[1].lun, 3);
    CHECK_EQ(rec->generation, 1);
    open_chain(&c, rec, three);
    CHECK_EQ(chain_match_layers(&c, &err), 0);
    CHECK_EQ(layers[1].lun, 5);
    CHECK_EQ(layers[2].lun, 3);
    CHECK_EQ(chain_next_lun(rec), 6);
    record_free(rec);
}

TEST(layers, numbers_survive_being_saved)
{
    struct chain_record *rec = record_new("export", "c"), *again;
    struct error err = ERROR_INIT;
    struct chain c;
    json_t *j;

    open_chain(&c, rec, three);
    CHECK_EQ(chain_match_layers(&c, &err), 0);
    rec->next_lun = 9;
    record_set(&rec->target, "t");
    record_set(&rec->view, "flat");
    j = record_to_json(rec);
    again = record_from_json(j, &err);
    REQUIRE(again);
    CHECK_EQ(again->layer_luns.nr, 3);
    CHECK_EQ(again->layer_luns.items[2], 3);
    CHECK_STR(again->layer_paths.items[1], "/b");
    CHECK_EQ(chain_next_lun(again), 9);
    json_decref(j);
    record_free(again);
    record_free(rec);
}

TEST(layers, a_half_done_commit_keeps_its_base_hidden_until_it_is_done)
{
    struct chain_record *rec = record_new("export", "c");
    struct error err = ERROR_INIT;
    struct layer_shape s;
    struct chain c;

    open_chain(&c, rec, three);
    CHECK_EQ(chain_match_layers(&c, &err), 0);
    layers[0].lun = 0; /* /b is being committed into /a */
    CHECK_EQ(shape_init(&s, rec, layers, 3, &err), 0);
    record_set(&s.commit_base, "/a");
    record_set(&s.commit_top, "/b");
    shape_swap(&s, rec);
    shape_release(&s);

    open_chain(&c, rec, three); /* killed on the way */
    CHECK_EQ(chain_match_layers(&c, &err), 0);
    CHECK_EQ(layers[0].lun, 0);
    CHECK_STR(rec->commit_top, "/b");

    open_chain(&c, rec, merged); /* killed when only the record was missing */
    CHECK_EQ(chain_match_layers(&c, &err), 0);
    CHECK_EQ(layers[0].lun, 4);
    CHECK_EQ(layers[1].lun, 3);
    CHECK(!rec->commit_top && !rec->commit_base);
    record_free(rec);
}

TEST(layers, a_shape_swapped_twice_changes_nothing)
{
    struct chain_record *rec = record_new("export", "c");
    struct error err = ERROR_INIT;
    struct layer_shape s;
    struct chain c;

    open_chain(&c, rec, three);
    CHECK_EQ(chain_match_layers(&c, &err), 0);
    open_chain(&c, rec, four);
    layers[3].lun = chain_next_lun(rec);
    CHECK_EQ(shape_init(&s, rec, layers, 4, &err), 0);
    shape_swap(&s, rec);
    CHECK_STR(rec->path, "/d");
    CHECK_EQ(rec->generation, 1);
    CHECK_EQ(rec->layer_luns.nr, 4);
    shape_swap(&s, rec);
    CHECK_STR(rec->path, "/c");
    CHECK_EQ(rec->generation, 0);
    CHECK_EQ(rec->layer_luns.nr, 3);
    CHECK_EQ(chain_next_lun(rec), 4);
    shape_release(&s);
    record_free(rec);
}
